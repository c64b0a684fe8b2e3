"""A loaded regression network: images in, maps of values out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deploy.backends.engine import Engine
from deploy.bundle.manifest import ClassInfo, InputSpec
from deploy.inference.call import Timings, as_images, run_resized, stack
from deploy.inference.postprocess import restore_labels, upsample


@dataclass(frozen=True, eq=False)
class RegressionResult:
    """The predicted map of an image H×W, or of N images N×H×W."""

    values: np.ndarray
    """float32 H×W or N×H×W at the size of the image, in the unit of the training maps; NaN where there is no data."""
    labels: np.ndarray
    """Level of the value, uint8, shaped as `values`; the ignore label where there is no data. Levels are computed at
    the network's size, so at their borders they may differ by a pixel from those of `values`."""
    valid: np.ndarray
    """bool, shaped as `values`: pixels with data."""
    timings: Timings


@dataclass(frozen=True, eq=False)
class RegressionModel:
    """A network with its preprocessing. It has no mutable state, so any number of threads may call it."""

    input: InputSpec
    classes: Sequence[ClassInfo]
    engine: Engine
    ignore_label: int = 255

    def __call__(self, image: np.ndarray | Sequence[np.ndarray]) -> RegressionResult:
        """Predict the map of an image, or of a batch of images of equal sizes.

        Args:
            image: H×W×C (or H×W for one channel), N×H×W×C, or a list of equal sizes, in raw units. Images of another
                size than the network's are resized, and the map is resized back bilinearly.

        Raises:
            UserError: an image is invalid (see `check_pixels`), or the images differ in size.
        """
        images, batched = as_images(image)
        outputs, valids, watch = run_resized(images, self.input, self.engine)
        values = stack([_masked(one, valid) for one, valid in zip(outputs["logits"], valids, strict=True)])
        pairs = zip(outputs["labels"], valids, strict=True)
        labels = stack([restore_labels(one, valid, self.ignore_label) for one, valid in pairs])
        valid = stack(valids)
        timings = watch.timings()
        if batched:
            return RegressionResult(values, labels, valid, timings)
        return RegressionResult(values[0], labels[0], valid[0], timings)


def _masked(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Resize a map 1×h×w to the size of `valid` H×W: float32 H×W, NaN where not valid."""
    [resized] = upsample(values, (valid.shape[0], valid.shape[1]))
    return resized if valid.all() else np.where(valid, resized, np.float32(np.nan))
