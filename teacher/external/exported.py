"""Open a network that exists only as an ONNX file, alone or in a bundle, and say what is known of it."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import msgspec
import numpy as np
import torch

import deploy
from deploy.backends.onnxruntime_cpu import import_onnxruntime
from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.manifest import MANIFEST, MODEL, as_written
from deploy.bundle.onnx_reader import Value, read_declared
from deploy.errors import UserError
from deploy.files.atomic import sha256_file
from deploy.files.stamp import stamp_of
from deploy.inference.normalize import raw_mean
from deploy.tasks.segmentation.model import SegmentationModel
from deploy.tasks.segmentation.task import SEGMENTATION
from deploy.text import shown

OF_RUN = ("teacher.bundle", "student.bundle")
"""Bundles in the folder of a run, the one that teaches first."""
FLOAT32, UINT8 = 1, 2
"""`TensorProto.DataType`."""


@dataclass(frozen=True)
class Exported:
    """What is known of an exported network before it runs."""

    source: Path
    """For messages."""
    sha256: str
    """Of everything that its scores depend on."""
    channels: tuple[str, ...]
    """Names of its channels; empty where only their number is known."""
    classes: tuple[str, ...]
    """Names of its classes; empty where only their number is known."""
    in_channels: int
    outputs: int
    uint8: bool
    """Whether it takes uint8 pixels; else float32."""
    layout: str
    """NCHW or NHWC."""
    size: tuple[int, int] | None
    """Height and width of its images; None where any will do."""
    tiles: bool
    """Whether images of other sizes are covered by windows at their own scale; else they are resized as a whole."""
    single: bool
    """Whether it takes one image at a time only."""
    mean: tuple[float, ...]
    """Of its images in raw units, which replaces pixels without data; empty where it is not known."""
    run: Callable[[np.ndarray], np.ndarray]
    """From images in its layout to scores float32 N×K×h×w."""


def open_exported(path: Path) -> Exported:
    """Open a bundle, the teacher of a run's folder or else its student, or an ONNX file.

    Raises:
        UserError: there is none, it is damaged, or it does not map one image to the scores of classes.
    """
    if path.is_file():
        return _opened(path, _files(path.parent))
    for folder in (path, *(path / name for name in OF_RUN)):
        if (folder / MANIFEST).is_file():
            return _opened(folder, _files(folder))
    what = (
        f"holds neither {MANIFEST} nor {' nor '.join(OF_RUN)}" if path.is_dir() else "no such file or folder"
    )
    raise UserError(f"{path}: {what}; give the folder of a bundle or of a run, or an ONNX file")


@lru_cache(maxsize=1)
def _opened(path: Path, files: frozenset[tuple[str, tuple[int, ...]]]) -> Exported:
    """The same network for all who ask for it in a run, verified and loaded once while its files stay the same."""
    del files
    return _open_file(path) if path.is_file() else _open_bundle(path)


def _files(folder: Path) -> frozenset[tuple[str, tuple[int, ...]]]:
    """Names and stamps of all files in a folder: weights may lie beside an ONNX file."""
    return frozenset((one.name, stamp_of(one)) for one in folder.iterdir() if one.is_file())


def _open_bundle(folder: Path) -> Exported:
    manifest = read_manifest(folder)
    if manifest.task != SEGMENTATION.name:
        raise UserError(
            f"{folder}: is a bundle for {manifest.task}; only one for {SEGMENTATION.name} can teach"
        )
    spec = manifest.input
    if spec.normalize != "set":
        raise UserError(
            f"{folder}: normalizes each {spec.normalize} by its own statistics, which crops and augmented images do not"
            " have; give a bundle that was trained with --data.normalize set"
        )
    # float32 for the sake of the scores; whatever else the bundle has was made from it
    model = deploy.load(folder, "onnxruntime", threads=torch.get_num_threads(), precision="fp32")
    assert isinstance(model, SegmentationModel)
    names = tuple(one.name for one in manifest.classes)
    depends = [manifest.files[MODEL].sha256, manifest.temperature, as_written(spec), names]
    return Exported(
        source=folder,
        sha256=hashlib.sha256(msgspec.json.encode(depends)).hexdigest(),
        channels=spec.channels,
        classes=names,
        in_channels=len(spec.channels),
        outputs=len(names),
        uint8=spec.dtype == "uint8",
        layout=spec.layout,
        size=(spec.height, spec.width),
        tiles=spec.resize == "tile",
        single=False,
        mean=raw_mean(spec),
        run=lambda batch: model.calibrated(model.engine.run(batch)["logits"]),
    )


def _open_file(path: Path) -> Exported:
    try:
        declared = read_declared(path)
        kind, image = _image(declared.inputs)
        output, outputs = _scores(declared.outputs)
    except ValueError as error:
        raise UserError(f"{path}: {shown(str(error))}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    _, channels, height, width = image
    fixed = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    digests = [sha256_file(path), *(_external(path, name) for name in sorted(declared.external))]
    return Exported(
        source=path,
        sha256=hashlib.sha256(" ".join(digests).encode()).hexdigest(),
        channels=(),
        classes=(),
        in_channels=int(channels),
        outputs=outputs,
        uint8=kind == UINT8,
        layout="NCHW",
        size=fixed,
        tiles=False,
        single=image[0] == 1,
        mean=(),
        run=_session(path, next(iter(declared.inputs)), output, outputs),
    )


def _image(inputs: dict[str, Value]) -> tuple[int, tuple[int | str, ...]]:
    """Type and shape of the one image that a file takes."""
    if len(inputs) != 1:
        listed = f" ({', '.join(inputs)})" if inputs else ""
        raise ValueError(f"has {len(inputs)} inputs{listed}; a teacher has one, the image N×C×H×W")
    name, value = next(iter(inputs.items()))
    if value.kind not in (FLOAT32, UINT8):
        raise ValueError(f"its input {name} is neither float32 nor uint8; export it with one of these")
    if value.shape is None or len(value.shape) != 4:
        raise ValueError(f"its input {name} is {_words(value.shape)}; a teacher takes images N×C×H×W")
    batch, channels, height, width = value.shape
    if not isinstance(channels, int):
        raise ValueError(
            f"its input {name} is {_words(value.shape)}, of any number of channels; export it with a fixed one"
        )
    if isinstance(width, int) and width <= 4 < channels:
        raise ValueError(f"its input {name} is {_words(value.shape)}, channels last; export it with N×C×H×W")
    if isinstance(height, int) != isinstance(width, int):
        raise ValueError(
            f"its input {name} is {_words(value.shape)}; fix both sides of the image, or neither"
        )
    if isinstance(batch, int) and batch != 1:
        raise ValueError(
            f"its input {name} takes {batch} images at a time; export it with one, or any number"
        )
    return value.kind, value.shape


def _scores(outputs: dict[str, Value]) -> tuple[str, int]:
    """Name and number of classes of the one output of a file."""
    if len(outputs) != 1:
        bundle = (
            "; of a bundle of edgedistill, give the folder" if {"labels", "logits"} <= outputs.keys() else ""
        )
        raise ValueError(
            f"has {len(outputs)} outputs ({', '.join(outputs)}); a teacher has one, scores of classes N×K×h×w{bundle}"
        )
    name, value = next(iter(outputs.items()))
    shape = value.shape
    if value.kind != FLOAT32 or (shape is not None and len(shape) != 4):
        raise ValueError(
            f"its output {name} is {_words(shape)}{'' if value.kind == FLOAT32 else ', not float32'}; a teacher returns"
            " the scores of classes before softmax and arg-max, float32 N×K×h×w"
        )
    if shape is None or not isinstance(shape[1], int):
        raise ValueError(
            f"its output {name} is {_words(shape)}, of any number of classes; export it with a fixed one"
        )
    if shape[1] < 2:
        raise ValueError(
            f"its output {name} has {shape[1]} map; a teacher has one for each of two or more classes"
        )
    return name, shape[1]


def _session(path: Path, image: str, scores: str, outputs: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function from images to scores by ONNX Runtime."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common public base
        raise UserError(
            f"{path}: ONNX Runtime {onnxruntime.__version__} cannot load it ({_first(error)})"
        ) from error

    def run(batch: np.ndarray) -> np.ndarray:
        try:
            found = np.asarray(session.run([scores], {image: batch})[0])
        except Exception as error:  # as above
            size = "×".join(map(str, batch.shape))
            raise UserError(
                f"{path}: ONNX Runtime cannot run it on images {size} ({_first(error)})"
            ) from error
        if found.ndim != 4 or found.shape[:2] != (len(batch), outputs):
            shape, size = ("×".join(map(str, one.shape)) for one in (found, batch))
            raise UserError(
                f"{path}: returns {shape} for images {size}; it must return {len(batch)}×{outputs}×h×w"
            )
        return found

    return run


def _external(path: Path, name: str) -> str:
    """SHA-256 of a file beside an ONNX file that holds some of its weights."""
    file = path.parent / name
    if Path(name).name != name or not file.is_file():
        raise UserError(f"{path}: keeps weights in {shown(name) or 'another file'}, which is not beside it")
    return sha256_file(file)


def _words(shape: Sequence[int | str] | None) -> str:
    return "of unknown shape" if shape is None else "×".join(str(side) or "?" for side in shape) or "a scalar"


def _first(error: Exception) -> str:
    return shown((str(error).strip().splitlines() or [type(error).__name__])[0][:200])
