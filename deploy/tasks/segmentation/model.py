"""A loaded segmentation network: images in, labels out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from deploy.backends.engine import Engine
from deploy.bundle.manifest import ClassInfo, InputSpec
from deploy.errors import UserError
from deploy.inference.call import Prepared, Stopwatch, Timings, as_images, prepared, run_prepared, stack
from deploy.inference.normalize import fill_of
from deploy.inference.postprocess import probabilities, restore_labels
from deploy.inference.preprocess import check_pixels, prepare, to_network
from deploy.inference.tiling import predict_tiled
from deploy.scores.labels import decide, labels_at
from deploy.scores.upsampling import upsample
from deploy.stream.calls import Calls
from deploy.tasks.result import OneResult
from deploy.tasks.segmentation.counts import class_counts


@dataclass(frozen=True, eq=False)
class SegmentationResult(OneResult):
    """The prediction for an image H×W, or for N images N×H×W.

    `save` writes `.png`: the labels or, with the image, the colors of the classes over it.
    """

    labels: np.ndarray
    """Class ids uint8 H×W or N×H×W at the size of the image; the ignore label where there is no data."""
    valid: np.ndarray
    """bool, shaped as `labels`: pixels with data."""
    timings: Timings
    _logits: np.ndarray | None = field(repr=False)
    """float32 N×K×h×w; None where they stayed on the GPU."""
    _network_size: tuple[int, int] = field(repr=False)
    classes: tuple[ClassInfo, ...] = ()
    """The meaning of the label ids."""

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Class probabilities float32 K×H×W or N×K×H×W, which sum to one over K; computed on first access.

        The softmax of the scores, which are resized bilinearly to the image. Pixels without data (see `valid`) have
        meaningless values.

        Raises:
            UserError: the bundle was loaded with `logits=False`.
        """
        if self._logits is None:
            raise UserError("the scores were left on the GPU; load the bundle without logits=False")
        size = self.labels.shape[-2:]
        stacked = stack([probabilities(logits, self._network_size, size) for logits in self._logits])
        return stacked if self.labels.ndim == 3 else stacked[0]

    def polygons(self) -> list[dict[str, Any]]:
        """The regions of one image as GeoJSON features in pixels (`deploy.tasks.segmentation.polygons.features`).

        Raises:
            UserError: the result is of a batch, or rasterio is not installed.
        """
        from deploy.tasks.segmentation.polygons import features  # optional dependency

        self._require_one("polygons")
        return features(self.labels, self.classes)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each class: id, name, pixels, and share of the pixels with data."""
        self._require_one("rows")
        return class_counts(self.labels, self.classes)

    def _drawn(self, image: np.ndarray | None) -> np.ndarray:
        from deploy.visualize import colorize, overlay  # start-up time

        return (
            colorize(self.labels, self.classes)
            if image is None
            else overlay(image, self.labels, self.classes)
        )

    def _writers(self) -> Mapping[str, Callable[[Path, np.ndarray | None], object]]:
        from deploy.files.images import write_png  # start-up time: most programs write nothing

        return {
            ".png": lambda path, image: write_png(path, self.labels if image is None else self._drawn(image))
        }


@dataclass(frozen=True, eq=False)
class SegmentationModel(Calls[SegmentationResult]):
    """A network with its preprocessing. It has no mutable state, so any number of threads may call it."""

    input: InputSpec
    classes: tuple[ClassInfo, ...]
    engine: Engine
    ignore_label: int = 255
    threshold: float | None = None
    """For two classes: a pixel gets the second if its probability is at least this; default: if it is larger."""
    temperature: float | None = None
    """Divisor of the scores; it changes `SegmentationResult.probabilities` but, without a threshold, no label."""

    def __call__(self, image: np.ndarray | Sequence[np.ndarray] | str | Path) -> SegmentationResult:
        """Predict an image, or a batch of images.

        Args:
            image: an image file, or H×W×C (or H×W for one channel), N×H×W×C, or a list of equal sizes. Channels are in
                the order of `input.channels`, in raw units: uint8 for a uint8 network, any real dtype for a float32
                one. Images of another size than the network's are resized, or tiled if `input.resize` is "tile".

        Raises:
            UserError: an image is invalid (see `check_pixels`), or the images differ in size.
        """
        if isinstance(image, str | Path):
            return self.file(image)
        images, batched = as_images(image)
        ready = [self.prepare(one) for one in images]
        labels, logits, size, timings = self._run(ready)
        if not batched:
            return SegmentationResult(labels[0], ready[0].valid, timings, logits, size, self.classes)
        valid = stack([one.valid for one in ready])
        return SegmentationResult(stack(labels), valid, timings, logits, size, self.classes)

    def prepare(self, image: np.ndarray) -> Prepared:
        """See `deploy.stream.calls.Calls.prepare`."""
        return prepared(image, self.input, check_pixels if self._is_tiled(image) else prepare)

    def predict(self, images: Sequence[Prepared]) -> list[SegmentationResult]:
        """See `deploy.stream.calls.Calls.predict`."""
        if len(images) > 1 and any(self._is_tiled(one.image) for one in images):
            return [result for one in images for result in self.predict([one])]
        labels, logits, size, timings = self._run(images)
        scores = [None if logits is None else logits[index : index + 1] for index in range(len(images))]
        return [
            SegmentationResult(labels[index], one.valid, timings, scores[index], size, self.classes)
            for index, one in enumerate(images)
        ]

    def draw(self, image: np.ndarray, result: SegmentationResult) -> np.ndarray:
        """See `deploy.stream.calls.Calls.draw`: the colors of the classes over the image."""
        from deploy.visualize import overlay  # start-up time: most programs draw nothing

        picture = image if image.ndim == 3 else image[..., None]
        return overlay(picture, result.labels, self.classes, legend=False)

    def calibrated(self, logits: np.ndarray) -> np.ndarray:
        """The network's scores divided by the bundle's temperature, if it has one."""
        return logits if self.temperature is None else logits / np.float32(self.temperature)

    def _is_tiled(self, image: np.ndarray) -> bool:
        return self.input.resize == "tile" and image.shape[:2] != (self.input.height, self.input.width)

    def _run(
        self, images: Sequence[Prepared]
    ) -> tuple[list[np.ndarray], np.ndarray | None, tuple[int, int], Timings]:
        """Labels H×W at the size of each image, logits N×K×h×w or None, the size of the network's labels, and timings.

        If one of the images is tiled, all of them are, and of the same size.
        """
        if self._is_tiled(images[0].image):
            watch = Stopwatch(sum(one.ms for one in images))
            raw_labels, logits = self._run_tiled([one.pixels for one in images])
            watch.lap()
        else:
            outputs, watch = run_prepared(images, self.engine)
            raw_labels, logits = outputs["labels"], outputs.get("logits")
        logits = None if logits is None else self.calibrated(logits)
        size = (raw_labels.shape[1], raw_labels.shape[2])
        decided = (
            raw_labels
            if self.threshold is None or logits is None
            else [self._decide(one, size, image.valid) for one, image in zip(logits, images, strict=True)]
        )
        pairs = zip(decided, images, strict=True)
        labels = [restore_labels(one, image.valid, self.ignore_label) for one, image in pairs]
        return labels, logits, size, watch.timings()

    def _decide(self, logits: np.ndarray, network: tuple[int, int], valid: np.ndarray) -> np.ndarray:
        """Labels uint8 by the threshold, in the shape of `valid`, for logits 2×h×w and the size of the network."""
        size = (valid.shape[0], valid.shape[1])
        return labels_at(logits if size == network else upsample(logits, network), size, self.threshold)

    def _run_tiled(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Labels N×H×W and logits N×K×H×W for images H×W×C of any size, by a sliding window."""
        window = (self.input.height, self.input.width)
        fill = fill_of(self.input)
        logits = stack([predict_tiled(self._scores, image, window, fill=fill) for image in images])
        return stack([decide(one) for one in logits]), logits

    def _scores(self, windows: np.ndarray) -> np.ndarray:
        """Logits N×K×h×w for windows N×H×W×C."""
        return self.engine.run(to_network(windows, self.input))["logits"]
