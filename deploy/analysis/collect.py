"""Run a model over labeled images once and count everything that the analysis needs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from deploy.analysis.calibration import LogitSample, Reliability, fit_temperature, rescaled
from deploy.analysis.curves import ProbabilityHistogram
from deploy.analysis.scores import ImageScores, confusion, dataset_scores, scores_of
from deploy.bundle.manifest import ClassInfo
from deploy.errors import UserError
from deploy.evaluation.receipt import Sample
from deploy.heartbeat import counted
from deploy.tasks.segmentation.model import SegmentationModel, SegmentationResult


@dataclass(frozen=True, eq=False)
class Findings:
    """Counts of a model's predictions on N images. Pixels without a valid label are not counted."""

    names: tuple[str, ...]
    confusions: np.ndarray
    """int64 N×K×(K+1), see `scores.confusion`."""
    valid_share: np.ndarray
    """float64 (N,): share of pixels with a valid label."""
    histogram: ProbabilityHistogram
    """Of the analyzed class. Where the image has no data, its probability counts as 0."""
    reliability: Reliability
    """Over pixels with data."""
    rescaled: Reliability | None
    """The same after a further temperature, if one was given."""

    def images(self) -> ImageScores:
        """Scores of each image."""
        return scores_of(self.confusions)

    def dataset(self) -> ImageScores:
        """Scores of all images together, N = 1."""
        return dataset_scores(self.confusions)


def analyze(
    model: SegmentationModel, samples: Iterable[Sample], positive: int, temperature: float | None = None
) -> Findings:
    """Run the model once over samples and count.

    Args:
        model: the model.
        samples: labeled images.
        positive: id of the class that curves are computed for.
        temperature: if given, calibration is also counted with the logits divided by it.

    Raises:
        UserError: no image has a valid pixel.
    """
    histogram, reliability = ProbabilityHistogram(), Reliability()
    after = Reliability() if temperature else None
    names, confusions, shares = [], [], []
    for name, image, label, valid in counted(samples):
        result: SegmentationResult = model(image)
        probabilities, with_data = result.probabilities, valid & result.valid
        names.append(name)
        shares.append(valid.mean())
        confusions.append(confusion(result.labels, label, valid, len(model.classes)))
        histogram.update(np.where(result.valid, probabilities[positive], 0), label == positive, valid)
        reliability.update(probabilities, label, with_data)
        if after and temperature:
            after.update(rescaled(probabilities, temperature), label, with_data)
    summed = np.array(confusions)
    if not summed.any():
        raise UserError("nothing to analyze: no image has a valid pixel; check labels and ignore label")
    return Findings(tuple(names), summed, np.array(shares), histogram, reliability, after)


def temperature_of(model: SegmentationModel, samples: Iterable[Sample], seed: int = 0) -> float:
    """Fit the temperature of a model on 100 000 random pixels of the samples.

    Returns:
        The temperature, to be applied on top of one that the model already has.

    Raises:
        UserError: no pixel is valid.
    """
    sample = LogitSample(len(model.classes), seed=seed)
    for _, image, label, valid in counted(samples):
        result: SegmentationResult = model(image)
        sample.update(result.probabilities, label, valid & result.valid)
    return fit_temperature(sample.logits, sample.labels)


def class_id(classes: Sequence[ClassInfo], name: str | None) -> int:
    """The id of the class called `name`; 1 if `name` is None.

    Raises:
        UserError: there is no such class; the message lists the classes.
    """
    names = [one.name for one in classes]
    if name is None and len(names) > 1:
        return 1
    if name in names:
        return names.index(name)
    raise UserError(f"--class {name}: no such class; there are {', '.join(names)}")
