"""Engines: compiled forms of a bundle's model, for one kind of device, in the bundle's folder `engines/`.

    engines/<name>.engine    what the compiler wrote
    engines/<name>.json      its sidecar: what it was made from, by what, for what, and the checksum of the engine

They are not part of the bundle: they can be made again from it at any time, and they do not move between machines.
"""

from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from deploy.bundle.manifest import ENGINES
from deploy.errors import UserError
from deploy.files.atomic import atomic_write, sha256_file, write_json

SUFFIX = ".engine"
SCHEMA_VERSION = 1

TensorRT = Literal["tensorrt", "tensorrt-rtx"]


class LayerSummary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the compiler made of the network (see `deploy.backends.tensorrt_gpu.layer_report`)."""

    convolutions: int
    int8_convolutions: int
    """Of them, those that read INT8 activations and INT8 weights."""
    conversions: int
    """Layers that do nothing but change the type or memory format."""
    float_layers: tuple[str, ...]
    """Convolutions and matrix products that stayed in floating point, by the names that they have in the ONNX."""


class Sidecar(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What must be known of an engine before it is loaded."""

    schema_version: int = SCHEMA_VERSION
    source: str
    """Name of the ONNX file in the bundle, and its checksum."""
    source_sha256: str
    sha256: str
    """Checksum and size of the engine file."""
    bytes: int
    backend: TensorRT
    version: str
    """Of the library that built it, such as "10.3.0" or "1.7.1.116"."""
    precision: Literal["fp32", "fp16", "int8"]
    gpu: str = ""
    """Name of the GPU that it was built on; empty when it was built ahead of time."""
    compute_capability: str = ""
    """Of that GPU, such as "8.7"."""
    targets: tuple[str, ...] = ()
    """Compute capabilities that it was built for ahead of time, such as ("sm86", "sm89")."""
    batch: tuple[int, int, int]
    """Smallest, best and largest batch."""
    options: dict[str, str | int | float | bool | None] = {}
    key: str
    """Hash of all that decides what the engine is: source, backend, version, device, options."""
    build_seconds: float
    layers: LayerSummary | None = None
    """None where the compiler did not tell."""
    passed: bool | None = None
    """Whether it passed its accuracy gate (`record_verdict`); None: not judged."""


class _Version(msgspec.Struct):
    """All that is read of a sidecar of any schema."""

    schema_version: int = SCHEMA_VERSION


def engines_folder(bundle: Path) -> Path:
    """Where the engines of a bundle lie."""
    return bundle / ENGINES


def write_engine(bundle: Path, name: str, data: bytes | memoryview, sidecar: Sidecar) -> Path:
    """Write `engines/<name>.engine` and its sidecar, whole or not at all; return the engine's path.

    `sidecar.sha256` and `.bytes` are filled in here. The engine comes first: without a sidecar it does not count.
    """
    path = engines_folder(bundle) / f"{name}{SUFFIX}"
    path.with_suffix(".json").unlink(missing_ok=True)
    with atomic_write(path) as file:
        file.write(data)
    sidecar = msgspec.structs.replace(sidecar, sha256=sha256_file(path), bytes=path.stat().st_size)
    try:
        write_json(path.with_suffix(".json"), sidecar)
    except BaseException:
        path.unlink()
        raise
    return path


def read_sidecar(engine: Path) -> Sidecar:
    """The sidecar of an engine file. `UserError` where it is missing or malformed."""
    path = engine.with_suffix(".json")
    if not path.is_file():
        raise UserError(f"{engine}: has no sidecar {path.name} beside it; build it again")
    try:
        data = path.read_bytes()
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version > SCHEMA_VERSION:
            raise UserError(
                f"{path}: has schema {version}, this version reads up to {SCHEMA_VERSION};"
                " update edgedistill, or build the engine again"
            )
        return msgspec.json.decode(data, type=Sidecar)
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise UserError(f"{path}: is not an engine's sidecar ({error}); build the engine again") from error


def record_verdict(engine: Path, passed: bool) -> None:
    """Write into the sidecar of an engine whether it passed its accuracy gate."""
    write_json(engine.with_suffix(".json"), msgspec.structs.replace(read_sidecar(engine), passed=passed))


def _newest_first(bundle: Path) -> list[Path]:
    """Engine files of a bundle that have a sidecar, newest first; what vanishes meanwhile does not count."""
    times: dict[Path, int] = {}
    for path in engines_folder(bundle).glob(f"*{SUFFIX}"):
        with suppress(OSError):  # a dangling link, or just removed
            if path.with_suffix(".json").is_file():
                times[path] = path.stat().st_mtime_ns
    return sorted(times, key=lambda path: (times[path], path.name), reverse=True)


def list_engines(
    bundle: Path, backend: str, precision: str | None = None, refusals: list[str] | None = None
) -> list[tuple[Path, Sidecar]]:
    """Engines of a bundle for a backend (and precision), newest first; those without a sidecar do not count.

    `UserError` for a sidecar that cannot be read; with `refusals` the reason is added there, and the engine left out.
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
    return found


def verify_engine(engine: Path, sidecar: Sidecar) -> None:
    """Raise `UserError` when the engine file is not the one that the sidecar describes."""
    try:
        same = engine.stat().st_size == sidecar.bytes and sha256_file(engine) == sidecar.sha256
    except OSError as error:
        raise UserError(f"{engine}: cannot be read ({error.strerror}); build it again") from error
    if not same:
        raise UserError(f"{engine}: differs from what was built (checksum mismatch); build it again")
