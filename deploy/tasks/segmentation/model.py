"""A loaded segmentation network: images in, labels out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from deploy.backends.engine import Engine
from deploy.bundle.manifest import ClassInfo, InputSpec
from deploy.inference.call import Stopwatch, Timings, as_images, stack
from deploy.inference.normalize import fill_of
from deploy.inference.postprocess import probabilities, restore_labels
from deploy.inference.preprocess import check_pixels, prepare, to_network
from deploy.inference.tiling import predict_tiled


@dataclass(frozen=True, eq=False)
class SegmentationResult:
    """The prediction for an image H×W, or for N images N×H×W."""

    labels: np.ndarray
    """Class ids uint8 H×W or N×H×W at the size of the image; the ignore label where there is no data."""
    valid: np.ndarray
    """bool, shaped as `labels`: pixels with data."""
    timings: Timings
    _logits: np.ndarray = field(repr=False)
    """float32 N×K×h×w."""
    _network_size: tuple[int, int] = field(repr=False)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Class probabilities float32 K×H×W or N×K×H×W, which sum to one over K; computed on first access.

        The softmax of the scores, which are resized bilinearly to the image. Pixels without data (see `valid`) have
        meaningless values.
        """
        size = self.labels.shape[-2:]
        stacked = stack([probabilities(logits, self._network_size, size) for logits in self._logits])
        return stacked if self.labels.ndim == 3 else stacked[0]


@dataclass(frozen=True, eq=False)
class SegmentationModel:
    """A network with its preprocessing. It has no mutable state, so any number of threads may call it."""

    input: InputSpec
    classes: tuple[ClassInfo, ...]
    engine: Engine
    ignore_label: int = 255
    threshold: float | None = None
    """For two classes: a pixel gets the second if its probability is at least this; default: if it is larger."""
    temperature: float | None = None
    """Divisor of the scores; it changes `SegmentationResult.probabilities` but, without a threshold, no label."""

    def __call__(self, image: np.ndarray | Sequence[np.ndarray]) -> SegmentationResult:
        """Predict an image, or a batch of images.

        Args:
            image: H×W×C (or H×W for one channel), N×H×W×C, or a list of equal sizes. Channels are in the order of
                `input.channels`, in raw units: uint8 for a uint8 network, any real dtype for a float32 one. Images of
                another size than the network's are resized, or tiled if `input.resize` is "tile".

        Raises:
            UserError: an image is invalid (see `check_pixels`), or the images differ in size.
        """
        images, batched = as_images(image)
        size = (self.input.height, self.input.width)
        tiled = self.input.resize == "tile" and images[0].shape[:2] != size
        ready, run = (check_pixels, self._run_tiled) if tiled else (prepare, self._run)

        watch = Stopwatch()
        inputs, valids = zip(*(ready(one, self.input) for one in images), strict=True)
        watch.lap()
        raw_labels, logits = run(inputs)
        watch.lap()
        if self.temperature is not None:
            logits = logits / np.float32(self.temperature)
        decided = raw_labels if self.threshold is None else self._decide(logits, raw_labels, valids[0].shape)
        pairs = zip(decided, valids, strict=True)
        labels = stack([restore_labels(one, valid, self.ignore_label) for one, valid in pairs])
        timings = watch.timings()

        valid = stack(valids)
        if not batched:
            labels, valid = labels[0], valid[0]
        return SegmentationResult(labels, valid, timings, logits, raw_labels.shape[1:])

    def _decide(self, logits: np.ndarray, raw_labels: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
        """Labels N×H×W at the size of the image by the threshold; `raw_labels` have the size of the network."""
        network, image = raw_labels.shape[1:], (size[0], size[1])
        return stack([probabilities(one, network, image)[1] >= self.threshold for one in logits]).astype(
            np.uint8
        )

    def _run(self, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Labels N×H×W and logits N×K×h×w for inputs in the size and layout of the network."""
        outputs = self.engine.run(stack(inputs))
        return outputs["labels"], outputs["logits"]

    def _run_tiled(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Labels N×H×W and logits N×K×H×W for images H×W×C of any size, by a sliding window."""
        window = (self.input.height, self.input.width)
        fill = fill_of(self.input.mean, self.input.normalize)
        logits = stack([predict_tiled(self._scores, image, window, fill=fill) for image in images])
        return logits.argmax(axis=1).astype(np.uint8), logits

    def _scores(self, windows: np.ndarray) -> np.ndarray:
        """Logits N×K×h×w for windows N×H×W×C."""
        return self.engine.run(to_network(windows, self.input))["logits"]
