"""A bundle, loaded: images in, labels out."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import numpy as np

from deploy.backends import CPU_MODELS, Engine, cpu_precision, open_engine
from deploy.bundle import GOLDEN, ClassInfo, InputSpec, Manifest, read_manifest, verify_files
from deploy.errors import UserError
from deploy.normalize import fill_of
from deploy.postprocess import probabilities, restore_labels
from deploy.preprocess import check_pixels, prepare, to_network
from deploy.tiling import predict_tiled


def load(
    path: str | Path,
    backend: str = "auto",
    threads: int | None = None,
    verify: bool = True,
    precision: str = "auto",
    fallback: bool = False,
) -> Any:
    """Open the bundle in folder `path` for inference: a `Model`, or a `GraspModel` where its task is to find grasps.

    `backend` is "auto" (a TensorRT engine that fits this GPU, else the faster CPU backend, measured once and remembered
    beside the bundle), "onnxruntime", "openvino", "tensorrt" or "tensorrt-rtx"; `threads` the number of CPU threads of
    one call (None: the backend's choice). `precision` is "auto" (INT8 where the bundle has it, which means that it
    passed its gate, else fp32), "fp32", "fp16" or "int8". With `fallback` a TensorRT backend that was asked for and
    cannot run is replaced by the CPU, with a warning. What came of it all is in `model.engine.name`.
    `verify=False` skips the checksums of the files that it needs (not those of the manifest and of engines) for a
    faster start; `deploy.bundle.verify_files` checks all that the bundle has.
    Raises `UserError` naming the file and the remedy when the bundle is incomplete, changed, or of a newer schema, and
    where it or this machine has not what was asked for.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    if verify:
        verify_files(folder, _needed(folder, manifest, precision))
    engine = open_engine(folder, backend, threads, precision, fallback)
    from deploy.tasks import model_of  # it makes the models below

    return model_of(manifest, engine)


def _needed(folder: Path, manifest: Manifest, precision: str) -> Manifest:
    """The manifest of only what may be opened: the CPU's model, and the example that backends are compared on."""
    names = {GOLDEN}
    with suppress(
        UserError, KeyError
    ):  # no such precision: there may be an engine, else `open_engine` says so
        names.add(CPU_MODELS[cpu_precision(folder, precision)])
    files = {name: entry for name, entry in manifest.files.items() if name in names}
    return msgspec.structs.replace(manifest, files=files)


@dataclass(frozen=True)
class Timings:
    """Wall-clock milliseconds of one call, over all its images; blending tiles counts as engine time."""

    preprocess_ms: float
    engine_ms: float
    postprocess_ms: float

    @property
    def total_ms(self) -> float:
        """The sum of the stages."""
        return self.preprocess_ms + self.engine_ms + self.postprocess_ms


@dataclass(frozen=True, eq=False)
class Result:
    """What the network says of an image H×W, or of N images N×H×W."""

    labels: np.ndarray
    """Label ids uint8 H×W or N×H×W at the size of the image; the ignore label where there is no data."""
    valid: np.ndarray
    """bool, shaped as `labels`: pixels that carry data."""
    timings: Timings
    _logits: np.ndarray = field(repr=False)
    """float32 N×K×h×w."""
    _network_size: tuple[int, int] = field(repr=False)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Class probabilities float32 K×H×W or N×K×H×W, summing to one over K; computed when first asked for.

        The softmax of the scores, resized bilinearly to the image. Pixels without data have figures too, which mean
        nothing: see `valid`.
        """
        size = self.labels.shape[-2:]
        stacked = stack([probabilities(logits, self._network_size, size) for logits in self._logits])
        return stacked if self.labels.ndim == 3 else stacked[0]


@dataclass(frozen=True, eq=False)
class Model:
    """A network and how to feed it. It has no mutable state: call it from as many threads as you like."""

    input: InputSpec
    classes: tuple[ClassInfo, ...]
    engine: Engine
    ignore_label: int = 255
    threshold: float | None = None
    """Of two classes: a pixel is the second where its probability is at least this, instead of where it is larger."""
    temperature: float | None = None
    """Scores are divided by it, so it changes `Result.probabilities` but, without a threshold, no label."""

    def __call__(self, image: np.ndarray | Sequence[np.ndarray]) -> Result:
        """Predict an image H×W×C (or H×W where there is one channel), or a batch: N×H×W×C or a list of equal sizes.

        Channels come in the order of `input.channels`, in raw units: uint8 for a uint8 network, any real dtype for a
        float32 one. Images of another size than the network's are resized, or tiled if `input.resize` is "tile".
        Raises `UserError` for what `preprocess.check_pixels` refuses, and for images of unequal sizes.
        """
        images, batched = as_images(image)
        size = (self.input.height, self.input.width)
        tiled = self.input.resize == "tile" and images[0].shape[:2] != size
        ready, run = (check_pixels, self._run_tiled) if tiled else (prepare, self._run)

        start = perf_counter()
        inputs, valids = zip(*(ready(one, self.input) for one in images), strict=True)
        prepared = perf_counter()
        raw_labels, logits = run(inputs)
        ran = perf_counter()
        if self.temperature is not None:
            logits = logits / np.float32(self.temperature)
        decided = raw_labels if self.threshold is None else self._decide(logits, raw_labels, valids[0].shape)
        pairs = zip(decided, valids, strict=True)
        labels = stack([restore_labels(one, valid, self.ignore_label) for one, valid in pairs])
        timings = Timings(_ms(prepared - start), _ms(ran - prepared), _ms(perf_counter() - ran))

        valid = stack(valids)
        if not batched:
            labels, valid = labels[0], valid[0]
        return Result(labels, valid, timings, logits, raw_labels.shape[1:])

    def _decide(self, logits: np.ndarray, raw_labels: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
        """Labels N×H×W at the size of the image by the threshold; `raw_labels` tell the size of the network."""
        network, image = raw_labels.shape[1:], (size[0], size[1])
        return stack([probabilities(one, network, image)[1] >= self.threshold for one in logits]).astype(
            np.uint8
        )

    def _run(self, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Labels N×H×W and logits N×K×h×w of inputs at the size and in the layout of the network."""
        outputs = self.engine.run(stack(inputs))
        return outputs["labels"], outputs["logits"]

    def _run_tiled(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Labels N×H×W and logits N×K×H×W of images of any size H×W×C, seen through a sliding window."""
        window = (self.input.height, self.input.width)
        fill = fill_of(self.input.mean, self.input.normalize)
        logits = stack([predict_tiled(self._scores, image, window, fill=fill) for image in images])
        return logits.argmax(axis=1).astype(np.uint8), logits

    def _scores(self, windows: np.ndarray) -> np.ndarray:
        """Logits N×K×h×w of windows N×H×W×C."""
        return self.engine.run(to_network(windows, self.input))["logits"]


def as_images(image: np.ndarray | Sequence[np.ndarray]) -> tuple[Sequence[np.ndarray], bool]:
    """The images of a call, at least one and all of one shape, and whether they are a batch."""
    if isinstance(image, np.ndarray):
        images, batched = (list(image), True) if image.ndim == 4 else ([image], False)
    elif isinstance(image, Sequence) and all(isinstance(one, np.ndarray) for one in image):
        images, batched = image, True
    else:
        raise UserError(
            f"expected an array or a list of arrays, got {type(image).__name__}; see deploy.images.read_image"
        )
    if len(images) == 0:
        raise UserError("the batch is empty; give at least one image")
    shapes = {one.shape for one in images}
    if len(shapes) > 1:
        listed = ", ".join("×".join(map(str, shape)) for shape in sorted(shapes))
        raise UserError(f"images of a batch must have one shape, found {listed}; predict them one by one")
    return images, batched


def stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Stack along a new first axis; without a copy where there is only one."""
    return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)


def _ms(seconds: float) -> float:
    return 1000 * seconds
