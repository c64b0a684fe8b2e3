"""The bundle: a folder with a model and everything that a device needs to run it, immutable after export.

    manifest.json   this file's `Manifest`: task, classes, input, outputs, checksums, measured metrics, provenance
    model.onnx      the fp32 network, from raw pixels to labels: normalization and arg-max are in the graph
    model.int8.onnx, model.int8-cpu.onnx, model.fp16.onnx, quantization.json
                    optional: the network in other precisions (`deploy.quantize`), and how they were made
    golden.npz      fixed `inputs` of the network and the `labels` and `logits` that they must produce
    receipt.json    how the export was verified

Engines compiled for a device are in `engines/` (`deploy.bundle.engine_files`); they are not part of the bundle.
`deploy.bundle.bundle_files` reads and writes all but those.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
MODEL = "model.onnx"
FP16 = "model.fp16.onnx"
INT8 = "model.int8.onnx"
"""Signed symmetric Q/DQ, the form that TensorRT parses."""
INT8_CPU = "model.int8-cpu.onnx"
"""The same quantization grid with unsigned activations, the form that CPUs run fast."""
QUANTIZATION = "quantization.json"
GOLDEN = "golden.npz"
ENGINES = "engines"
"""Folder of the engines compiled from the bundle; not part of it."""
RECEIPT = "receipt.json"


class ClassInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One class; its label id is its position in `Manifest.classes`."""

    name: str
    color: tuple[int, int, int]
    """RGB, each 0..255."""

    def __post_init__(self) -> None:
        if not all(0 <= value <= 255 for value in self.color):
            raise ValueError(f"class {self.name}: color {self.color} is not three numbers in 0..255")


class InputSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The network's input: either uint8 N×H×W×C or float32 N×C×H×W, in the raw units of the image.

    Normalization by `mean` and `std` happens inside the graph; they are here as a record, and because `mean` replaces
    pixels without data.
    """

    channels: tuple[str, ...]
    """Names in order, such as ("R", "G", "B") or ("VV", "VH")."""
    height: int
    width: int
    dtype: Literal["uint8", "float32"]
    layout: Literal["NHWC", "NCHW"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: Literal["stretch", "tile"] = "stretch"
    """How an image of another size is fitted to the network: resized, or covered by a sliding window."""
    nodata: Literal["nan"] | None = None
    """"nan": pixels that are not finite in any channel carry no data. None: such pixels are an error."""
    normalize: Literal["set", "image", "patch"] = "set"
    """Which statistics normalize the input: `mean` and `std`, or those of the image or of the patch itself (see
    `deploy.inference.normalize`); `mean` is then 0 and `std` 1."""
    depth: int | None = None
    """Position of a channel that is depth in meters: its holes are filled from their surroundings, and the mean of the
    image is subtracted (see `deploy.inference.depth`), so that the height of the camera does not matter."""

    def __post_init__(self) -> None:
        count = len(self.channels)
        if count == 0 or len(self.mean) != count or len(self.std) != count:
            raise ValueError(
                f"input: {count} channels, {len(self.mean)} means and {len(self.std)} stds do not match"
            )
        if self.height < 1 or self.width < 1:
            raise ValueError(f"input: size {self.height}×{self.width} is not positive")
        if not all(value > 0 for value in self.std):
            raise ValueError(f"input: std {self.std} is not positive")
        if (self.dtype, self.layout) not in (("uint8", "NHWC"), ("float32", "NCHW")):
            raise ValueError(f"input: {self.dtype} {self.layout} is neither uint8 NHWC nor float32 NCHW")
        if self.nodata and self.dtype == "uint8":
            raise ValueError("input: uint8 pixels cannot be NaN, so nodata must be null")
        if self.normalize != "set" and (self.dtype == "uint8" or any(self.mean) or set(self.std) != {1.0}):
            raise ValueError(f"input: normalized by {self.normalize} needs float32, means of 0 and stds of 1")
        if self.normalize != "set" and (self.depth is not None or not self.nodata):
            raise ValueError(f"input: normalized by {self.normalize} goes with nodata, and without depth")
        if self.depth is not None and not (
            0 <= self.depth < count and self.nodata and self.resize == "stretch"
        ):
            raise ValueError(f"input: channel {self.depth} cannot be depth: give float32, nodata and stretch")


class OutputSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One output of the graph."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    """Sizes; a name stands for an axis of variable size, such as the batch."""
    meaning: str
    """What the values mean, with their unit."""


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Checksum, size and precision of one file of the bundle."""

    sha256: str
    bytes: int
    precision: str = ""
    """"fp32", "int8", … for a model; empty for other files."""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`manifest.json`. Create it without `files` and `digest`: `write_bundle` fills them in."""

    schema_version: int = SCHEMA_VERSION
    task: str = "segmentation"
    """One of `deploy.tasks.registry.TASKS`."""
    name: str
    classes: tuple[ClassInfo, ...]
    ignore_label: int = 255
    """Label id of pixels without data; never a class."""
    input: InputSpec
    outputs: tuple[OutputSpec, ...]
    files: dict[str, FileEntry] = {}
    metrics: dict[str, float | str] = {}
    """Measured figures and what they were measured on: {"dataset": "camvid", "split": "test", "miou": 0.61}."""
    provenance: dict[str, str] = {}
    """Where the weights came from: command, versions, commit, seed."""
    temperature: float | None = None
    """Scores are divided by it before the softmax, so that probabilities are calibrated (see `deploy.analysis`)."""
    threshold: float | None = None
    """For two classes, the probability from which a pixel is the second class; None: the larger score decides."""
    digest: str = ""
    """SHA-256 of the manifest without this field, as JSON with sorted keys; it reveals later edits."""

    def __post_init__(self) -> None:
        if not self.classes:
            raise ValueError("classes: a bundle needs at least one")
        if not len(self.classes) <= self.ignore_label <= 255:
            raise ValueError(f"ignore_label: {self.ignore_label} is not in {len(self.classes)}..255")
        check_file_names(self.files)
        _check_decision(self)


def golden_metric(precision: str) -> str:
    """Key in `Manifest.metrics` of the share of golden labels that a lower precision reproduced when it was made."""
    return f"{precision} golden agreement"


def _check_decision(manifest: Manifest) -> None:
    temperature, threshold = manifest.temperature, manifest.threshold
    if temperature is not None and not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature: {temperature} is not positive")
    if threshold is not None and not (0 <= threshold <= 1 and len(manifest.classes) == 2):
        raise ValueError(f"threshold: {threshold} needs two classes and to be in 0..1")


def check_file_names(names: Iterable[str]) -> None:
    """Raise `ValueError` for a name that is no plain file name, or is the manifest's own."""
    for name in names:
        if Path(name).name != name or name == MANIFEST:
            raise ValueError(f"files: {name!r} is not a plain file name that a bundle may hold")
