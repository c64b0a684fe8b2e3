"""A loaded regression network: images in, maps of values out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy.backends.engine import Engine
from deploy.bundle.manifest import ClassInfo, InputSpec
from deploy.inference.call import Prepared, Timings, as_images, prepared, run_prepared, stack
from deploy.inference.postprocess import restore_labels
from deploy.scores.upsampling import upsample
from deploy.stream.calls import Calls
from deploy.tasks.regression.levels import LEVELS
from deploy.tasks.result import OneResult


@dataclass(frozen=True, eq=False)
class RegressionResult(OneResult):
    """The predicted map of an image H×W, or of N images N×H×W.

    `save` writes `.npy`: the values; and `.png`: the colors of the levels, over the image if it is given.
    """

    values: np.ndarray
    """float32 H×W or N×H×W at the size of the image, in the unit of the training maps; NaN where there is no data."""
    labels: np.ndarray
    """Level of the value, uint8, shaped as `values`; the ignore label where there is no data. Levels are computed at
    the network's size, so at their borders they may differ by a pixel from those of `values`."""
    valid: np.ndarray
    """bool, shaped as `values`: pixels with data."""
    timings: Timings

    def rows(self) -> list[dict[str, Any]]:
        """One row: pixels with data, and the least, mean and largest value there (NaN without any)."""
        self._require_one("rows")
        known = self.values[self.valid].astype(np.float64)
        least, mean, most = (known.min(), known.mean(), known.max()) if known.size else (np.nan,) * 3
        return [{"pixels": known.size, "min": float(least), "mean": float(mean), "max": float(most)}]

    def _drawn(self, image: np.ndarray | None) -> np.ndarray:
        from deploy.visualize import colorize, overlay  # start-up time: most programs draw nothing

        return colorize(self.labels, LEVELS) if image is None else overlay(image, self.labels, LEVELS)

    def _writers(self) -> Mapping[str, Callable[[Path, np.ndarray | None], object]]:
        # start-up time: most programs write nothing
        from deploy.files.images import write_png
        from deploy.tasks.regression.labeled import write_map

        return {
            ".npy": lambda path, _: write_map(path, self.values),
            ".png": lambda path, image: write_png(path, self._drawn(image)),
        }


@dataclass(frozen=True, eq=False)
class RegressionModel(Calls[RegressionResult]):
    """A network with its preprocessing. It has no mutable state, so any number of threads may call it."""

    input: InputSpec
    classes: Sequence[ClassInfo]
    engine: Engine
    ignore_label: int = 255

    def __call__(self, image: np.ndarray | Sequence[np.ndarray] | str | Path) -> RegressionResult:
        """Predict the map of an image, or of a batch of images of equal sizes.

        Args:
            image: an image file, or H×W×C (or H×W for one channel), N×H×W×C, or a list of equal sizes, in raw units.
                Images of another size than the network's are resized, and the map is resized back bilinearly.

        Raises:
            UserError: an image is invalid (see `check_pixels`), or the images differ in size.
        """
        if isinstance(image, str | Path):
            return self.file(image)
        images, batched = as_images(image)
        results = self.predict([self.prepare(one) for one in images])
        if not batched:
            return results[0]
        values, labels, valid = (
            stack([getattr(one, name) for one in results]) for name in ("values", "labels", "valid")
        )
        return RegressionResult(values, labels, valid, results[0].timings)

    def prepare(self, image: np.ndarray) -> Prepared:
        """See `deploy.stream.calls.Calls.prepare`."""
        return prepared(image, self.input)

    def predict(self, images: Sequence[Prepared]) -> list[RegressionResult]:
        """See `deploy.stream.calls.Calls.predict`."""
        outputs, watch = run_prepared(images, self.engine)
        values = [_masked(one, image.valid) for one, image in zip(outputs["logits"], images, strict=True)]
        pairs = zip(outputs["labels"], images, strict=True)
        labels = [restore_labels(one, image.valid, self.ignore_label) for one, image in pairs]
        timings = watch.timings()
        parts = zip(values, labels, images, strict=True)
        return [RegressionResult(value, label, image.valid, timings) for value, label, image in parts]

    def draw(self, image: np.ndarray, result: RegressionResult) -> np.ndarray:
        """See `deploy.stream.calls.Calls.draw`: the colors of the levels over the image."""
        from deploy.visualize import overlay  # start-up time: most programs draw nothing

        picture = image if image.ndim == 3 else image[..., None]
        return overlay(picture, result.labels, self.classes, legend=False)


def _masked(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Resize a map 1×h×w to the size of `valid` H×W: float32 H×W, NaN where not valid."""
    [resized] = upsample(values, (valid.shape[0], valid.shape[1]))
    return resized if valid.all() else np.where(valid, resized, np.float32(np.nan))
