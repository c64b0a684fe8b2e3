"""The bundle: a folder with a model and everything that a device needs to run it, immutable after export.

    manifest.json   this file's `Manifest`: task, classes, input, outputs, checksums, measured metrics, provenance
    model.onnx      the fp32 network, from raw pixels to labels: normalization and arg-max are in the graph
    model.int8.onnx, model.int8-cpu.onnx, model.fp16.onnx, quantization.json
                    where they were made: other precisions of it (`deploy.quantize`), and how
    golden.npz      fixed `inputs` and the `labels` and `logits` that they must give, at network level
    receipt.json    how the export was verified

Engines compiled for a device lie in `engines/` (`deploy.bundle.engine_files`); they are not part of the bundle.
"""

import hashlib
import math
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, Literal
from zipfile import BadZipFile

import msgspec
import numpy as np

from deploy.errors import UserError
from deploy.files.atomic import atomic_write, named_write_errors, sha256_file
from deploy.files.staging import staged

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
MODEL = "model.onnx"
FP16 = "model.fp16.onnx"
INT8 = "model.int8.onnx"
"""Signed symmetric Q/DQ, as TensorRT parses it."""
INT8_CPU = "model.int8-cpu.onnx"
"""The same grid as unsigned activations, as CPUs run it fast."""
QUANTIZATION = "quantization.json"
GOLDEN = "golden.npz"
ENGINES = "engines"
"""Folder of what was compiled from the bundle; not part of it."""
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
    """What the network reads: either uint8 N×H×W×C or float32 N×C×H×W, in the raw units of the image.

    Normalization by `mean` and `std` happens inside the graph; they are here as a record, and because `mean` is what
    stands in for pixels without data.
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
    """How an image of another size meets the network: resized to it, or covered by a sliding window of its size."""
    nodata: Literal["nan"] | None = None
    """"nan": pixels that are not finite in any channel carry no data. None: such pixels are an error."""
    normalize: Literal["set", "image", "patch"] = "set"
    """By which numbers: `mean` and `std`, or the image's or the patch's own (see `deploy.inference.normalize`); then `mean` is 0
    and `std` 1."""
    depth: int | None = None
    """Position of a channel that is depth in meters: its holes are filled from around them, and the mean of the image
    is taken off (see `deploy.inference.depth`), so that the height of the camera does not matter."""

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
    """Sizes; a name stands for an axis that may vary, such as the batch."""
    meaning: str
    """What the numbers are, with their unit."""


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file of the bundle must be."""

    sha256: str
    bytes: int
    precision: str = ""
    """"fp32", "int8", … for a model; empty for other files."""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`manifest.json`. Build one without `files` and `digest` and give it to `write_bundle`, which fills them in."""

    schema_version: int = SCHEMA_VERSION
    task: Literal["segmentation", "grasp"] = "segmentation"
    name: str
    classes: tuple[ClassInfo, ...]
    ignore_label: int = 255
    """Label id of pixels without data; never a class."""
    input: InputSpec
    outputs: tuple[OutputSpec, ...]
    files: dict[str, FileEntry] = {}
    metrics: dict[str, float | str] = {}
    """Measured figures with what they were measured on: {"dataset": "camvid", "split": "test", "miou": 0.61}."""
    provenance: dict[str, str] = {}
    """Where the weights came from: command, versions, commit, seed."""
    temperature: float | None = None
    """Scores are divided by it before the softmax, so that probabilities are calibrated (see `deploy.analysis`)."""
    threshold: float | None = None
    """Of two classes, the probability from which a pixel is the second; None: the larger score decides."""
    digest: str = ""
    """SHA-256 of the manifest without this field, as JSON with sorted keys: it shows later edits."""

    def __post_init__(self) -> None:
        if not self.classes:
            raise ValueError("classes: a bundle needs at least one")
        if not len(self.classes) <= self.ignore_label <= 255:
            raise ValueError(f"ignore_label: {self.ignore_label} is not in {len(self.classes)}..255")
        _check_names(self.files)
        _check_decision(self)


def write_bundle(
    folder: str | Path,
    manifest: Manifest,
    files: Mapping[str, bytes | Path],
    precision: Mapping[str, str] | None = None,
    keep: Iterable[str] = (),
) -> Manifest:
    """Write a bundle, replacing an older bundle at `folder`, and return its finished manifest.

    `files` maps names in the bundle to their bytes or to a file to copy; `precision` maps model files to "fp32", ….
    Of an older bundle nothing stays but the folders that `keep` names.
    Everything is staged in a hidden sibling and renamed into place, so a bundle at `folder` is always a whole one.
    Raises `UserError` when `folder` holds something else than a bundle, or the disk is full.
    """
    folder = Path(folder).resolve()
    if folder.exists() and not (folder / MANIFEST).is_file() and not _is_empty_folder(folder):
        raise UserError(f"{folder}: exists and is not a bundle, so it is not replaced; choose another folder")
    _check_names(files)
    precision = precision or {}
    with staged(folder, keep) as staging:
        entries = {}
        for name, source in sorted(files.items()):
            path = staging / name
            with named_write_errors(folder / name, path), open(path, "xb") as file:
                _fill(file, source)
            entries[name] = FileEntry(sha256_file(path), path.stat().st_size, precision.get(name, ""))
        manifest = _sealed(msgspec.structs.replace(manifest, files=entries, digest=""))
        path = staging / MANIFEST
        with named_write_errors(folder / MANIFEST, path), open(path, "xb") as file:
            _fill(file, _manifest_bytes(manifest))
    return manifest


def extend_bundle(
    folder: str | Path,
    files: Mapping[str, bytes | Path],
    precision: Mapping[str, str] | None = None,
    metrics: Mapping[str, float | str] | None = None,
    drop: Iterable[str] = (),
) -> Manifest:
    """Add files (and metrics) to a bundle, or replace some, and return its new manifest; its engines stay.

    Files named by `drop` are left out, unless they are among the new ones. What stays must be undamaged. The bundle is
    at any moment the old one or the new one. Raises `UserError` as `read_manifest` and `write_bundle` do.
    """
    folder = Path(folder).resolve()
    manifest, leaving = read_manifest(folder), {*files, *drop}
    verify_files(folder, manifest, leaving)
    kept = {name: folder / name for name in manifest.files if name not in leaving}
    known = {name: entry.precision for name, entry in manifest.files.items()}
    manifest = msgspec.structs.replace(manifest, metrics=manifest.metrics | dict(metrics or {}))
    return write_bundle(folder, manifest, kept | dict(files), known | dict(precision or {}), keep=(ENGINES,))


def set_decision(
    folder: str | Path,
    threshold: float | None,
    temperature: float | None,
    metrics: Mapping[str, float | str | None] | None = None,
) -> Manifest:
    """Change what turns a bundle's scores into labels, and return its new manifest; all files but the manifest stay.

    Of `metrics` those that are None are taken out. Raises `UserError` as `read_manifest` and `write_bundle` do, and for
    a threshold or a temperature that cannot be; the bundle is then as it was.
    """
    folder = Path(folder).resolve()
    manifest = read_manifest(folder)
    merged = manifest.metrics | dict(metrics or {})
    kept = {name: value for name, value in merged.items() if value is not None}
    changes = {"threshold": threshold, "temperature": temperature, "metrics": kept, "digest": ""}
    try:
        manifest = _sealed(msgspec.structs.replace(manifest, **changes))
    except ValueError as error:
        raise UserError(f"{folder}: {error}") from error
    with atomic_write(folder / MANIFEST) as file:
        file.write(_manifest_bytes(manifest))
    return manifest


def read_manifest(folder: str | Path) -> Manifest:
    """Read and check `manifest.json` (not the other files: see `verify_files`).

    Raises `UserError` when `folder` is no bundle, the manifest was edited, is of a newer schema, or is malformed.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        what = "has no manifest.json, so it is not a bundle" if Path(folder).is_dir() else "no such folder"
        raise UserError(f"{folder}: {what}; give the folder that the export wrote")
    try:
        raw = msgspec.json.decode(path.read_bytes())
        version = raw["schema_version"]
        newer = version > SCHEMA_VERSION
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, KeyError) as error:
        raise UserError(f"{path}: is not a manifest ({error}); export the bundle again") from error
    if newer:
        raise UserError(
            f"{path}: has schema version {version}, this edgedistill reads up to {SCHEMA_VERSION}; upgrade edgedistill"
        )
    if raw.get("digest") != _digest(raw):
        raise UserError(f"{path}: was changed after the export (digest mismatch); export the bundle again")
    try:
        return msgspec.convert(raw, Manifest)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: {error}; export the bundle again") from error


def verify_files(folder: str | Path, manifest: Manifest, skip: Collection[str] = ()) -> None:
    """Raise `UserError` naming the first file that is missing, has another size, or another checksum.

    Files named by `skip` are not looked at: they are about to be replaced.
    """
    for name, entry in manifest.files.items():
        if name in skip:
            continue
        path = Path(folder) / name
        if not path.is_file():
            raise UserError(f"{path}: is missing from the bundle; copy the whole folder again")
        size = path.stat().st_size
        if size != entry.bytes:
            raise UserError(f"{path}: has {size} bytes instead of {entry.bytes}; copy the whole folder again")
        if sha256_file(path) != entry.sha256:
            raise UserError(
                f"{path}: differs from the exported file (checksum mismatch); copy the whole folder again"
            )


def golden_metric(precision: str) -> str:
    """The name in `Manifest.metrics` of the share of golden labels that a lower precision gave when it was made."""
    return f"{precision} golden agreement"


def read_golden(folder: str | Path) -> dict[str, np.ndarray]:
    """The fixed `inputs` of the network and the `labels` and `logits` that they gave at export; see `Engine.run`.

    Raises `UserError` when the file is missing or does not hold the three.
    """
    path = Path(folder) / GOLDEN
    if not path.is_file():
        raise UserError(f"{path}: is missing, so there is nothing to compare with; export the bundle again")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in ("inputs", "labels", "logits")}
    except (ValueError, KeyError, EOFError, BadZipFile) as error:
        raise UserError(
            f"{path}: does not hold inputs, labels and logits ({error}); export the bundle again"
        ) from error


def _digest(raw: Mapping[str, object]) -> str:
    content = {key: value for key, value in raw.items() if key != "digest"}
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


def _sealed(manifest: Manifest) -> Manifest:
    """The manifest with its digest, as `read_manifest` will see it (structs do not check types when built in code)."""
    try:
        checked = msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest)
        return msgspec.structs.replace(checked, digest=_digest(_written(checked)))
    except msgspec.ValidationError as error:
        raise UserError(f"the manifest of bundle {manifest.name} is invalid: {error}") from error


def _written(manifest: Manifest) -> dict[str, object]:
    """The manifest as JSON has it: without a field of the decision that is not set, as if there were no choice."""
    raw = msgspec.json.decode(msgspec.json.encode(manifest))
    optional = ("temperature", "threshold")
    return {name: value for name, value in raw.items() if value is not None or name not in optional}


def _manifest_bytes(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(_written(manifest)), indent=2) + b"\n"


def _check_decision(manifest: Manifest) -> None:
    temperature, threshold = manifest.temperature, manifest.threshold
    if temperature is not None and not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature: {temperature} is not positive")
    if threshold is not None and not (0 <= threshold <= 1 and len(manifest.classes) == 2):
        raise ValueError(f"threshold: {threshold} needs two classes and to be in 0..1")
    if manifest.task != "segmentation" and (temperature, threshold) != (None, None):
        raise ValueError(f"threshold and temperature: are for segmentation, not for {manifest.task}")


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if Path(name).name != name or name == MANIFEST:
            raise ValueError(f"files: {name!r} is not a plain file name that a bundle may hold")


def _is_empty_folder(folder: Path) -> bool:
    return folder.is_dir() and next(folder.iterdir(), None) is None


def _fill(file: BinaryIO, source: bytes | Path) -> None:
    if isinstance(source, bytes):
        file.write(source)
    else:
        with open(source, "rb") as original:
            shutil.copyfileobj(original, file)
    file.flush()
    os.fsync(file.fileno())
