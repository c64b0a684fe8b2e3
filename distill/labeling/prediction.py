"""What one or two networks say about an image without labels: a mask to correct, and how sure they are."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.errors import UserError
from deploy.inference.image_files import predict_file
from deploy.tasks.segmentation.model import SegmentationResult
from distill.data.datasets.image_folder import ImageFiles, read_files
from distill.data.sample import IGNORE


@dataclass(frozen=True)
class Prediction:
    """The prediction for an image, in figures over its pixels with data."""

    name: str
    """Of the image file."""
    confidence: float
    """Mean probability of the labels; NaN for an image without data."""
    disagreement: float | None
    """Share of the pixels to which the second network gives another label; None without one."""
    void: float
    """Share of the pixels that are too unsure for a label."""
    shares: tuple[float, ...]
    """Share of each class in the mask."""

    @property
    def urgency(self) -> tuple[float, float]:
        """Sorts the images to label next first: by disagreement if there is a second network, then by confidence."""
        confidence = np.inf if np.isnan(self.confidence) else self.confidence
        return -(self.disagreement or 0.0), confidence


def predict_image(
    image: ImageFiles, model: Any, second: Any | None = None, min_confidence: float = 0.0
) -> tuple[np.ndarray, Prediction]:
    """Label an image.

    Args:
        image: its files.
        model: a segmentation network, whose labels are taken.
        second: another one with the same classes.
        min_confidence: least probability of a label; other pixels become void.

    Returns:
        The mask, uint8 H×W of class ids, 255 where the image has no data or the label is too unsure; and the figures.

    Raises:
        UserError: a file cannot be read, or does not have the channels of the networks.
    """
    result = _result(model, image)
    labels, valid = result.labels, result.valid
    # of the label itself: with a threshold it need not be the most likely class
    ids = np.where(valid, labels, 0)[None].astype(np.intp)
    confidence = np.take_along_axis(result.probabilities, ids, axis=0)[0]
    sure = valid & (confidence >= min_confidence)
    count = max(1, np.count_nonzero(valid))
    disagreement = None
    if second is not None:
        disagreement = np.count_nonzero(valid & (_result(second, image).labels != labels)) / count
    mask = np.where(sure, labels, IGNORE).astype(np.uint8)
    found = np.bincount(labels[sure], minlength=len(model.classes)) / count
    return mask, Prediction(
        name=image.name,
        confidence=float(confidence[valid].mean()) if valid.any() else np.nan,
        disagreement=disagreement,
        void=np.count_nonzero(valid & ~sure) / count,
        shares=tuple(found.tolist()),
    )


def _result(model: Any, image: ImageFiles) -> SegmentationResult:
    if len(image.paths) == 1:
        return predict_file(model, image.paths[0])[1]
    try:
        return model(read_files(image))
    except UserError as error:
        raise UserError(f"{image.paths[0]}: {error}") from error
