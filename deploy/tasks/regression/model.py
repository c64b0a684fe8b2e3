"""A regression network, loaded: images in, one map of values out."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from deploy.backends.engine import Engine
from deploy.bundle.manifest import ClassInfo, InputSpec
from deploy.inference.call import Timings, as_images, stack
from deploy.inference.postprocess import restore_labels, upsample
from deploy.inference.preprocess import prepare


@dataclass(frozen=True, eq=False)
class RegressionResult:
    """The predicted map of an image H×W, or of N images N×H×W."""

    values: np.ndarray
    """float32 H×W or N×H×W at the size of the image, in the unit of the training maps; NaN where there is no data."""
    labels: np.ndarray
    """Level of the value, uint8, shaped as `values`; the ignore label where there is no data."""
    valid: np.ndarray
    """bool, shaped as `values`: pixels that carry data."""
    timings: Timings


@dataclass(frozen=True, eq=False)
class RegressionModel:
    """A network and how to feed it. It has no mutable state: call it from as many threads as you like."""

    input: InputSpec
    classes: Sequence[ClassInfo]
    engine: Engine
    ignore_label: int = 255

    def __call__(self, image: np.ndarray | Sequence[np.ndarray]) -> RegressionResult:
        """Predict the map of an image, or of a batch of images of equal sizes.

        Args:
            image: H×W×C (H×W where there is one channel), N×H×W×C, or a list of equal sizes, in raw units. Images of
                another size than the network's are resized, and the map is resized back bilinearly.

        Raises:
            UserError: an image that `check_pixels` refuses, or images of unequal sizes.
        """
        images, batched = as_images(image)
        start = perf_counter()
        inputs, valids = zip(*(prepare(one, self.input) for one in images), strict=True)
        prepared = perf_counter()
        outputs = self.engine.run(stack(inputs))
        ran = perf_counter()
        values = stack([_masked(one, valid) for one, valid in zip(outputs["logits"], valids, strict=True)])
        pairs = zip(outputs["labels"], valids, strict=True)
        labels = stack([restore_labels(one, valid, self.ignore_label) for one, valid in pairs])
        valid = stack(valids)
        milliseconds = (
            1000 * (b - a) for a, b in ((start, prepared), (prepared, ran), (ran, perf_counter()))
        )
        timings = Timings(*milliseconds)
        if batched:
            return RegressionResult(values, labels, valid, timings)
        return RegressionResult(values[0], labels[0], valid[0], timings)


def _masked(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The map 1×h×w of a network at the size of `valid` H×W: float32 H×W, NaN where not valid."""
    [resized] = upsample(values, (valid.shape[0], valid.shape[1]))
    return resized if valid.all() else np.where(valid, resized, np.float32(np.nan))
