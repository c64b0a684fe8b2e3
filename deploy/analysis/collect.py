"""One pass of a model over labeled images, and what is kept of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from deploy.analysis.calibration import LogitSample, Reliability, fit_temperature, rescaled
from deploy.analysis.curves import ProbabilityHistogram
from deploy.analysis.scores import ImageScores, confusion, dataset_scores, scores_of
from deploy.bundle.manifest import ClassInfo
from deploy.errors import UserError
from deploy.evaluation.receipt import Sample
from deploy.tasks.segmentation.model import Model, Result


@dataclass(frozen=True, eq=False)
class Findings:
    """What a model said of N images, in numbers. Pixels whose label is unknown are nowhere in it."""

    names: tuple[str, ...]
    confusions: np.ndarray
    """int64 N×K×(K+1), see `scores.confusion`."""
    valid_share: np.ndarray
    """float64 (N,): the share of pixels whose label is known."""
    histogram: ProbabilityHistogram
    """Of the class looked at. Where the image carries no data its probability counts as 0."""
    reliability: Reliability
    """Over pixels with data."""
    rescaled: Reliability | None
    """The same after a further temperature, where one was given."""

    def images(self) -> ImageScores:
        """Scores of each image."""
        return scores_of(self.confusions)

    def dataset(self) -> ImageScores:
        """Scores of all images together, N = 1."""
        return dataset_scores(self.confusions)


def analyze(
    model: Model, samples: Iterable[Sample], positive: int, temperature: float | None = None
) -> Findings:
    """Run the model over samples, once, and count; class id `positive` is the one that curves are made of.

    With `temperature` calibration is also counted with scores divided by it. Raises `UserError` where no image has a
    valid pixel.
    """
    histogram, reliability = ProbabilityHistogram(), Reliability()
    after = Reliability() if temperature else None
    names, confusions, shares = [], [], []
    for name, image, label, valid in samples:
        result: Result = model(image)
        probabilities, with_data = result.probabilities, valid & result.valid
        names.append(name)
        shares.append(valid.mean())
        confusions.append(confusion(result.labels, label, valid, len(model.classes)))
        histogram.update(np.where(result.valid, probabilities[positive], 0), label == positive, valid)
        reliability.update(probabilities, label, with_data)
        if after and temperature:
            after.update(rescaled(probabilities, temperature), label, with_data)
    counted = np.array(confusions)
    if not counted.any():
        raise UserError("nothing to analyze: no image has a valid pixel; check labels and ignore label")
    return Findings(tuple(names), counted, np.array(shares), histogram, reliability, after)


def temperature_of(model: Model, samples: Iterable[Sample], seed: int = 0) -> float:
    """The temperature that a model's scores want, by its likelihood on a random 100 000 of the samples' pixels.

    It comes on top of one that the model has already. Raises `UserError` as `fit_temperature` does.
    """
    sample = LogitSample(len(model.classes), seed=seed)
    for _, image, label, valid in samples:
        result: Result = model(image)
        sample.update(result.probabilities, label, valid & result.valid)
    return fit_temperature(sample.logits, sample.labels)


def class_id(classes: Sequence[ClassInfo], name: str | None) -> int:
    """The id of the class called `name`, by default 1. Raises `UserError` listing the classes where there is none."""
    names = [one.name for one in classes]
    if name is None and len(names) > 1:
        return 1
    if name in names:
        return names.index(name)
    raise UserError(f"--class {name}: no such class; there are {', '.join(names)}")
