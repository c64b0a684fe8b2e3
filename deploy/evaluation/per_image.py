"""Scores of a model on labeled images: of each image, and of all together."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.errors import UserError
from deploy.evaluation.receipt import Sample, Scorer
from deploy.heartbeat import counted


@dataclass(frozen=True)
class ImageScore:
    """The score of one image."""

    name: str
    score: float | None
    """In the metric of the task; None where nothing in the image can be scored, such as without a valid pixel."""
    details: dict[str, float | None]
    """See `deploy.evaluation.receipt.Scorer.details`; empty where `score` is None."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model reaches on labeled images."""

    images: tuple[ImageScore, ...]
    """In the order of the samples."""
    total: Scorer
    """Of all images together: its score is that of the summed counts, not the mean of the images' scores."""

    def worst_first(self) -> list[int]:
        """Positions of the images that have a score, from the lowest to the highest."""
        scored = [(one.score, index) for index, one in enumerate(self.images) if one.score is not None]
        return [index for _, index in sorted(scored)]


def evaluate_images(
    model: Callable[[np.ndarray], Any], samples: Iterable[Sample], new_scorer: Callable[[], Scorer]
) -> Evaluation:
    """Run a model on samples, one at a time, and score each.

    Args:
        model: maps an image H×W×C to a result of its task.
        samples: iterated once, so memory does not grow with their number.
        new_scorer: creates an empty scorer.

    Raises:
        UserError: there is no image, nothing in any image can be scored, or the model refuses an image (the message
            names it).
    """
    images: list[ImageScore] = []
    total = new_scorer()
    for name, image, truth, valid in counted(samples):
        one = new_scorer()
        try:
            one.update(model(image), truth, valid)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
        for sums, counts in zip(total.counts(), one.counts(), strict=True):
            sums += counts
        images.append(_scored(name, one))
    if not images:
        raise UserError("nothing to evaluate: the data has no images; check its folder")
    if all(one.score is None for one in images):
        raise UserError("nothing to evaluate: no image has a valid pixel; check labels and ignore label")
    return Evaluation(tuple(images), total)


def _scored(name: str, scorer: Scorer) -> ImageScore:
    try:
        return ImageScore(name, scorer.score(), scorer.details())
    except UserError:  # nothing to score
        return ImageScore(name, None, {})
