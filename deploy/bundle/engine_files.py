"""Engines: a bundle's model compiled for one kind of device, in the bundle's folder `engines/`.

    engines/<name>.engine    what the compiler wrote
    engines/<name>.json      its sidecar: source, compiler, target device, and the checksum of the engine

They are not part of the bundle: they can be rebuilt from it at any time, and they are not portable between machines.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from deploy.bundle.lock import locked
from deploy.bundle.manifest import ENGINES
from deploy.bundle.signed import warn_if_signed
from deploy.errors import UserError
from deploy.files.atomic import atomic_write, json_text, write_json
from deploy.files.json_files import read_json

SUFFIX = ".engine"
SCHEMA_VERSION = 2
"""2: with operating system and architecture."""

TensorRT = Literal["tensorrt", "tensorrt-rtx"]


class RebuildNeeded(UserError):
    """An engine that cannot be used, and has to be built again from its bundle."""


class LayerSummary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Layers of the compiled network (see `deploy.backends.tensorrt_gpu.layer_report`)."""

    convolutions: int
    int8_convolutions: int
    """Convolutions that read INT8 activations and INT8 weights."""
    conversions: int
    """Layers that only change the type or memory format."""
    float_layers: tuple[str, ...]
    """Convolutions and matrix products in neither INT8 nor FP8, by their names in the ONNX."""
    fp8_convolutions: int = 0
    """Convolutions that read FP8 activations and FP8 weights."""
    dla: "DlaLayers | None" = None


class DlaLayers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a Jetson's deep learning accelerator (DLA) runs of a network, by the builder."""

    layers: int
    """Layers that it takes."""
    on_gpu: tuple[str, ...]
    """Layers that it does not take, by operation and name in the ONNX."""
    parts: int | None = None
    """Parts of the engine on the DLA; each change between it and the GPU costs time. None: the builder did not say."""
    gpu_parts: int | None = None


class Sidecar(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Facts about an engine that are needed before it is loaded."""

    schema_version: int = SCHEMA_VERSION
    source: str
    """Name of the ONNX file in the bundle."""
    source_sha256: str
    """Checksum of that file."""
    sha256: str
    """Checksum of the engine file."""
    bytes: int
    """Size of the engine file."""
    backend: TensorRT
    version: str
    """Version of the library that built it, such as "10.3.0" or "1.7.1.116"."""
    precision: Literal["fp32", "fp16", "int8", "fp8"]
    gpu: str = ""
    """Name of the GPU that it was built on; empty when it was built ahead of time."""
    compute_capability: str = ""
    """Compute capability of that GPU, such as "8.7"."""
    os: str = ""
    """Operating system that it was built on, such as "Linux"; empty in sidecars of schema 1."""
    architecture: str = ""
    """The machine's, such as "x86_64" or "aarch64"; empty in sidecars of schema 1."""
    targets: tuple[str, ...] = ()
    """Compute capabilities that it was built for ahead of time, such as ("sm86", "sm89")."""
    batch: tuple[int, int, int]
    """Smallest, best and largest batch."""
    options: dict[str, str | int | float | bool | None] = {}
    key: str
    """Hash of everything that determines the engine: source, backend, version, device, options."""
    build_seconds: float
    layers: LayerSummary | None = None
    """None where the compiler did not report them."""
    passed: bool | None = None
    """Whether it passed its accuracy gate (`record_verdict`); None: not checked."""


class _Version(msgspec.Struct):
    """The one field that is read from a sidecar of any schema."""

    schema_version: int = SCHEMA_VERSION


def engines_folder(bundle: Path) -> Path:
    """The folder of a bundle's engines."""
    return bundle / ENGINES


def write_engine(bundle: Path, name: str, data: bytes | memoryview, sidecar: Sidecar) -> Path:
    """Write `engines/<name>.engine` and its sidecar, completely or not at all.

    An older engine of this name stays until both are on disk. Then the new engine appears first: without a sidecar it
    is ignored.

    Args:
        bundle: folder of the bundle.
        name: name of the engine, without a suffix.
        data: content of the engine file.
        sidecar: its sidecar; `sha256` and `bytes` are filled in here.

    Returns:
        Path of the engine.

    Raises:
        UserError: as `deploy.files.atomic.atomic_write` does.
    """
    path = engines_folder(bundle) / f"{name}{SUFFIX}"
    digest = hashlib.sha256(data).hexdigest()
    sidecar = msgspec.structs.replace(sidecar, sha256=digest, bytes=memoryview(data).nbytes)
    with locked(bundle), atomic_write(path.with_suffix(".json"), "w") as side, atomic_write(path) as file:
        for content, target in ((data, file), (json_text(sidecar), side)):
            target.write(content)
            target.flush()
            os.fsync(target.fileno())  # a full disk is found while the older files are there
        path.with_suffix(".json").unlink(missing_ok=True)
    warn_if_signed(bundle, path.name)
    return path


def read_sidecar(engine: Path) -> Sidecar:
    """Read the sidecar of an engine file.

    Raises:
        UserError: it is missing, malformed, or has a newer schema.
    """
    path = engine.with_suffix(".json")
    if not path.is_file():
        raise UserError(f"{engine}: has no sidecar {path.name} beside it; build it again")
    try:
        version = read_json(path, _Version).schema_version
        if version > SCHEMA_VERSION:
            raise UserError(
                f"{path}: has schema {version}, this version reads up to {SCHEMA_VERSION};"
                " update edgedistill, or build the engine again"
            )
        return read_json(path, Sidecar)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is not an engine's sidecar ({error}); build the engine again") from error


def record_verdict(engine: Path, passed: bool) -> None:
    """Write into the sidecar of an engine whether it passed its accuracy gate."""
    with locked(engine.parent.parent):
        write_json(engine.with_suffix(".json"), msgspec.structs.replace(read_sidecar(engine), passed=passed))


def _newest_first(bundle: Path) -> list[Path]:
    """Engine files of a bundle that have a sidecar, newest first; files that disappear meanwhile are left out."""
    times: dict[Path, int] = {}
    for path in engines_folder(bundle).glob(f"*{SUFFIX}"):
        with suppress(OSError):  # a dangling link, or just removed
            if path.with_suffix(".json").is_file():
                times[path] = path.stat().st_mtime_ns
    return sorted(times, key=lambda path: (times[path], path.name), reverse=True)


def computes_in_tf32(sidecar: Sidecar) -> bool:
    """Whether an fp32 engine computes in TF32, as it does by default on GPUs from Ampere on."""
    turing = sidecar.targets == ("sm75",) or sidecar.compute_capability == "7.5"
    return sidecar.precision == "fp32" and bool(sidecar.options.get("tf32", True)) and not turing


def list_engines(
    bundle: Path, backend: str, precision: str | None = None, refusals: list[str] | None = None
) -> list[tuple[Path, Sidecar]]:
    """List the engines of a bundle for a backend, in the order in which they are tried.

    First those for the smallest batch, which run a single image without filling it up to a batch; of equals the newest.
    Engines without a sidecar are ignored.

    Args:
        bundle: folder of the bundle.
        backend: "tensorrt" or "tensorrt-rtx".
        precision: only engines of this precision; None: of any.
        refusals: a list to which the reasons are added why sidecars cannot be read; their engines are left out.

    Returns:
        Paths of the engines and their sidecars.

    Raises:
        UserError: a sidecar cannot be read, and `refusals` is None.
    """
    found: list[tuple[Path, Sidecar]] = []
    for path in _newest_first(bundle):
        try:
            sidecar = read_sidecar(path)
        except UserError as error:
            if refusals is None:
                raise
            refusals.append(str(error))
            continue
        if sidecar.backend == backend and precision in (None, sidecar.precision):
            found.append((path, sidecar))
    return sorted(found, key=lambda one: one[1].batch[0])


def read_engine(engine: Path, sidecar: Sidecar) -> bytes:
    """Read an engine, and check that it is the one that the sidecar describes. What was checked is what is returned.

    Raises:
        RebuildNeeded: it is another, or cannot be read.
    """
    try:
        plan = engine.read_bytes()
    except OSError as error:
        raise RebuildNeeded(f"{engine}: cannot be read ({error.strerror}); build it again") from error
    if len(plan) != sidecar.bytes or hashlib.sha256(plan).hexdigest() != sidecar.sha256:
        raise RebuildNeeded(f"{engine}: differs from what was built (checksum mismatch); build it again")
    return plan
