"""The bundle: a folder with a model and everything that a device needs to run it, immutable after export.

    manifest.json   this file's `Manifest`: task, classes, input, outputs, checksums, measured metrics, provenance
    model.onnx      the fp32 network, from raw pixels to labels: normalization and arg-max are in the graph
    model.int8.onnx, model.int8-cpu.onnx, model.fp8.onnx, model.fp16.onnx, quantization.json
                    optional: the network in other precisions (`deploy.quantize`), and how they were made
    golden.npz      fixed `inputs` of the network and the `labels` and `logits` that they must produce
    receipt.json    how the export was verified
    signature.json  optional: who vouches for the manifest, which has the checksums of all files (`deploy.signing`)

Engines compiled for a device are in `engines/` (`deploy.bundle.engine_files`); they are not part of the bundle.
`deploy.bundle.bundle_files` reads and writes all but those.

A manifest may come from anywhere, so every field has a range: whatever it says, nothing larger than `MOST_VALUES`
numbers is allocated for it, and its names hold no characters that a terminal would obey.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from deploy.bundle.pixel_scale import LINEAR, PixelScale, check_numbers
from deploy.text import shown

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
MODEL = "model.onnx"
FP16 = "model.fp16.onnx"
INT8 = "model.int8.onnx"
"""Signed symmetric Q/DQ with half precision beside it, the form that TensorRT parses."""
FP8 = "model.fp8.onnx"
"""Q/DQ of 8-bit floats, for TensorRT on GPUs from compute capability 8.9 on."""
INT8_CPU = "model.int8-cpu.onnx"
"""The same quantization grid with unsigned activations, the form that CPUs run fast."""
QUANTIZATION = "quantization.json"
GOLDEN = "golden.npz"
ENGINES = "engines"
"""Folder of the engines compiled from the bundle; not part of it."""
RECEIPT = "receipt.json"
SIGNATURE = "signature.json"
"""Signs the manifest (`deploy.signing`), so the manifest does not list it."""
KNOWN = frozenset((MODEL, FP16, INT8, FP8, INT8_CPU, QUANTIZATION, GOLDEN, RECEIPT))
"""Files that this package writes into bundles."""

MOST_BYTES = 4 << 20
"""Largest `manifest.json` that is read; those of this package have a few kB."""
MOST_VALUES = 1 << 28
"""Largest height × width × channels of an input: 1 GiB as float32."""
LONGEST_NAME = 200
"""Characters of a name: of the bundle, a class, a channel, an output or a metric."""
LONGEST_TEXT = 1 << 16
LONGEST_FILE_NAME = 255
"""Bytes of a file's name in UTF-8, as file systems have it."""

Name = Annotated[str, Meta(max_length=LONGEST_NAME)]
Text = Annotated[str, Meta(max_length=LONGEST_TEXT)]
Side = Annotated[int, Meta(ge=1, le=1 << 14)]
Size = Annotated[int, Meta(ge=1, le=1 << 31)]
Finite = Annotated[float, Meta(ge=-1e30, le=1e30)]
"""Finite in float32, too, like all that follow from it."""
Scale = Annotated[float, Meta(ge=1e-30, le=1e30)]
Temperature = Annotated[float, Meta(ge=1e-3, le=1e3)]
Share = Annotated[float, Meta(ge=0, le=1)]


class ClassInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One class; its label id is its position in `Manifest.classes`."""

    name: Name
    color: tuple[int, int, int]
    """RGB, each 0..255."""

    def __post_init__(self) -> None:
        check_name("class", self.name)
        if not all(0 <= value <= 255 for value in self.color):
            raise ValueError(f"class {self.name}: color {self.color} is not three numbers in 0..255")


class InputSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The network's input: either uint8 N×H×W×C or float32 N×C×H×W, in the raw units of the image.

    Normalization by `mean` and `std` happens inside the graph; they are here as a record, and because `mean` replaces
    pixels without data (`deploy.inference.normalize.fill_of`).
    """

    channels: Annotated[tuple[Name, ...], Meta(max_length=4096)]
    """Names in order, such as ("R", "G", "B") or ("VV", "VH")."""
    height: Side
    width: Side
    dtype: Literal["uint8", "float32"]
    layout: Literal["NHWC", "NCHW"]
    mean: tuple[Finite, ...]
    std: tuple[Scale, ...]
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
    log_floor: tuple[Scale, ...] | None = None
    """The graph takes the logarithm of the pixels first: a channel x becomes (ln(max(x, log_floor)) - mean) / std, with
    `log_floor` in raw units, `mean` and `std` of the logarithms. None: x becomes (x - mean) / std."""
    clip: tuple[tuple[Finite, Finite], ...] | None = None
    """The graph holds the pixels in a range first: low and high of each channel, in raw units. `mean` and `std` are of
    the results. Not with `log_floor`, see `scale`."""

    def __post_init__(self) -> None:
        count = len(self.channels)
        _check_input_size(self)
        if count == 0 or len(self.mean) != count or len(self.std) != count:
            raise ValueError(
                f"input: {count} channels, {len(self.mean)} means and {len(self.std)} stds do not match"
            )
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
        if self.scale.name != "linear" and (self.normalize != "set" or self.depth is not None):
            raise ValueError("input: log_floor and clip go with normalize set, and without depth")
        try:
            check_numbers(self.scale, self.channels, self.mean)
        except ValueError as error:
            raise ValueError(f"input: {error}") from error

    @property
    def scale(self) -> PixelScale:
        """What the graph does with the pixels before it normalizes them."""
        return PixelScale(self.log_floor, self.clip)


def as_written(spec: InputSpec) -> dict[str, Any]:
    """The fields of an input as they are written: without those of the scale that are not set.

    Earlier versions refuse fields that they do not know, and checksums over the others stay as they were.
    """
    fields = msgspec.to_builtins(spec)
    return {name: value for name, value in fields.items() if value is not None or name not in vars(LINEAR)}


class OutputSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One output of the graph."""

    name: Name
    dtype: Name
    shape: Annotated[tuple[Size | Name, ...], Meta(max_length=8)]
    """Sizes; a name stands for an axis of variable size, such as the batch."""
    meaning: Name
    """What the values mean, with their unit."""

    def __post_init__(self) -> None:
        for text in (self.name, self.dtype, self.meaning, *self.shape):
            check_name("output", str(text))


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Checksum, size and precision of one file of the bundle."""

    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, Meta(ge=0, le=1 << 40)]
    precision: Annotated[str, Meta(pattern="^[a-z0-9]{0,16}$")] = ""
    """"fp32", "int8", … for a model; empty for other files."""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`manifest.json`. Create it without `files` and `digest`: `write_bundle` fills them in."""

    schema_version: Annotated[int, Meta(ge=1)] = SCHEMA_VERSION
    task: Name = "segmentation"
    """One of `deploy.tasks.registry.TASKS`."""
    name: Name
    classes: tuple[ClassInfo, ...]
    ignore_label: int = 255
    """Label id of pixels without data; never a class."""
    input: InputSpec
    outputs: Annotated[tuple[OutputSpec, ...], Meta(max_length=32)]
    files: Annotated[dict[str, FileEntry], Meta(max_length=1000)] = {}
    metrics: Annotated[dict[Name, float | Text], Meta(max_length=1000)] = {}
    """Measured figures and what they were measured on: {"dataset": "camvid", "split": "test", "miou": 0.61}."""
    provenance: Annotated[dict[Name, Text], Meta(max_length=1000)] = {}
    """Where the weights came from: command, versions, commit, seed."""
    temperature: Temperature | None = None
    """Scores are divided by it before the softmax, so that probabilities are calibrated (see `deploy.analysis`)."""
    threshold: Share | None = None
    """For two classes, the probability from which a pixel is the second class; None: the larger score decides."""
    digest: str = ""
    """SHA-256 of the manifest without this field, as JSON with sorted keys; it reveals later edits."""

    def __post_init__(self) -> None:
        if not self.classes:
            raise ValueError("classes: a bundle needs at least one")
        if not len(self.classes) <= self.ignore_label <= 255:
            raise ValueError(f"ignore_label: {self.ignore_label} is not in {len(self.classes)}..255")
        for what, names in (
            ("name", [self.name, self.task]),
            ("metrics", self.metrics),
            ("provenance", self.provenance),
        ):
            for name in names:
                check_name(what, name)
        check_file_names(self.files)
        _check_decision(self)
        _check_agreements(self)


def golden_metric(precision: str) -> str:
    """Key in `Manifest.metrics` of the share of golden labels that a lower precision reproduced when it was made."""
    return f"{precision}{_AGREEMENT}"


_AGREEMENT = " golden agreement"


def plain_name(text: str) -> str:
    """A name for a bundle from any text, such as the name of its folder."""
    return shown(text)[:LONGEST_NAME]


def check_name(field: str, name: str) -> None:
    """Raise `ValueError` for a name that is too long, or that would not be one plain line of text on a terminal.

    Args:
        field: what it names, in the message.
        name: the name.
    """
    if len(name) > LONGEST_NAME:
        raise ValueError(f"{field}: a name of {len(name)} characters; at most {LONGEST_NAME} are allowed")
    if shown(name) != name:
        raise ValueError(f"{field}: the name '{shown(name)}' holds a control character")


def check_file_names(names: Iterable[str]) -> None:
    """Raise `ValueError` for a name that is no plain file name, or is that of the manifest or its signature."""
    for name in names:
        if len(name.encode(errors="replace")) > LONGEST_FILE_NAME:
            raise ValueError(f"files: a name of {len(name)} characters is too long for a file")
        if Path(name).name != name or name in (MANIFEST, SIGNATURE, "..") or shown(name) != name:
            raise ValueError(f"files: '{shown(name)}' is not a plain file name that a bundle may hold")


def _check_input_size(spec: InputSpec) -> None:
    for name in spec.channels:
        check_name("channel", name)
    if spec.height < 1 or spec.width < 1:
        raise ValueError(f"input: size {spec.height}×{spec.width} is not positive")
    if (values := spec.height * spec.width * len(spec.channels)) > MOST_VALUES:
        raise ValueError(f"input: {values} values per image; at most {MOST_VALUES} are allowed")


def _check_decision(manifest: Manifest) -> None:
    temperature, threshold = manifest.temperature, manifest.threshold
    if temperature is not None and not 1e-3 <= temperature <= 1e3:
        raise ValueError(f"temperature: {temperature} is not in 0.001..1000")
    if threshold is not None and not (0 <= threshold <= 1 and len(manifest.classes) == 2):
        raise ValueError(f"threshold: {threshold} needs two classes and to be in 0..1")


def _check_agreements(manifest: Manifest) -> None:
    for name, value in manifest.metrics.items():
        if name.endswith(_AGREEMENT) and (isinstance(value, str) or not 0 <= value <= 1):
            raise ValueError(f"metrics: {name} is not a number in 0..1")
