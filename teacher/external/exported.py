"""A network that exists only as an ONNX file, alone or in a bundle: it scores on the CPU and is never trained."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import deploy
from deploy.backends.onnxruntime_cpu import import_onnxruntime
from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.manifest import MANIFEST, MODEL
from deploy.bundle.onnx_reader import Value, read_declared
from deploy.errors import UserError
from deploy.files.atomic import sha256_file
from deploy.inference.tiling import predict_tiled
from deploy.tasks.segmentation.model import SegmentationModel
from deploy.tasks.segmentation.task import SEGMENTATION
from deploy.text import shown
from teacher.fitting import resized
from teacher.pspnet import Output

OF_RUN = ("teacher.bundle", "student.bundle")
"""Bundles in the folder of a run, the one that teaches first."""
FLOAT32, UINT8 = 1, 2
"""`TensorProto.DataType`."""
UINT8_MAX = 255


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


class ExportedNetwork(nn.Module):
    """An exported network as one of this project.

    It keeps its size. Where that is fixed, whole images of the run, which have `whole` pixels, are resized to it, and
    crops of them by the same factors; what then has another size than the network is covered by overlapping windows.
    A network that tiles sees images at the run's own scale.

    Args:
        exported: the network.
        whole: height and width of the run's whole images.
        fill: of each channel, in the units that the network takes: what pads images smaller than a window.
        threads: CPU threads; None: those of torch.
    """

    def __init__(self, exported: Exported, whole: tuple[int, int], fill: Sequence[float]) -> None:
        super().__init__()
        self.exported, self.whole, self.fill = exported, whole, tuple(fill)
        self.in_channels = exported.in_channels
        # in the state: it tells the outputs of one network from those of another
        self.sha256 = nn.Buffer(torch.tensor(list(bytes.fromhex(exported.sha256)), dtype=torch.uint8))

    def forward(self, x: Tensor) -> Output:
        """Run the network.

        Args:
            x: floating images N×C×H×W in the units that the network takes; rounded where these are uint8.

        Returns:
            Logits N×K×h×w at the network's stride, without gradient.

        Raises:
            UserError: the runtime cannot run it on images of this size.
        """
        logits = self._logits(x.detach().float().cpu())
        return Output(logits.to(x.device), None)

    def _logits(self, images: Tensor) -> Tensor:
        size = self.exported.size
        if size is None:
            return self._scores(images)
        if not self.exported.tiles:
            sides = zip(images.shape[-2:], size, self.whole, strict=True)
            height, width = (max(1, round(side * own / whole)) for side, own, whole in sides)
            images = resized(images, (height, width))
        if tuple(images.shape[-2:]) == size:
            return self._scores(images)
        return torch.stack([self._by_windows(one, size) for one in images])

    def _by_windows(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """Scores K×h×w of an image C×H×W of another size than the network, at its stride."""
        cells: list[tuple[int, int]] = []

        def scores(windows: np.ndarray) -> np.ndarray:
            found = self._scores(torch.from_numpy(windows).permute(0, 3, 1, 2)).numpy()
            cells.append((found.shape[2], found.shape[3]))
            return found

        pixels = predict_tiled(scores, image.permute(1, 2, 0).numpy(), size, fill=self.fill)
        height, width = (
            max(1, round(side * count / own))
            for side, count, own in zip(image.shape[-2:], cells[0], size, strict=True)
        )
        return F.interpolate(torch.from_numpy(pixels)[None], (height, width), mode="area")[0]

    def _scores(self, images: Tensor) -> Tensor:
        exported = self.exported
        if exported.layout == "NHWC":
            images = images.permute(0, 2, 3, 1)
        array = images.contiguous().numpy()
        if exported.uint8:
            array = np.rint(array.clip(0, UINT8_MAX)).astype(np.uint8)
        parts = [array[i : i + 1] for i in range(len(array))] if exported.single else [array]
        return torch.cat([torch.from_numpy(np.array(exported.run(part), np.float32)) for part in parts])


def open_exported(path: Path) -> Exported:
    """Open a bundle, the teacher of a run's folder or else its student, or an ONNX file.

    Raises:
        UserError: there is none, it is damaged, or it does not map one image to the scores of classes.
    """
    if path.is_file():
        return _open_file(path)
    for folder in (path, *(path / name for name in OF_RUN)):
        if (folder / MANIFEST).is_file():
            return _open_bundle(folder)
    what = (
        f"holds neither {MANIFEST} nor {' nor '.join(OF_RUN)}" if path.is_dir() else "no such file or folder"
    )
    raise UserError(f"{path}: {what}; give the folder of a bundle or of a run, or an ONNX file")


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
    depends = [manifest.files[MODEL].sha256, manifest.temperature, spec, names]
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
        mean=spec.mean,
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
