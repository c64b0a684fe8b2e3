"""One network in several processes: what one of them chose, the others open, once each; or they refuse.

`auto` measures, so two machines may choose differently, and give different numbers. Here the choice is made once.
"""

import hashlib
from functools import cache, lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import msgspec
import numpy as np

from deploy.backends.cpu import open_cpu
from deploy.backends.engine import CPU, check_choice, cpu_precision, model_file
from deploy.backends.setting import Setting
from deploy.bundle.bundle_files import read_manifest, verify_files
from deploy.bundle.golden_file import read_golden
from deploy.bundle.manifest import GOLDEN, KNOWN, Manifest
from deploy.errors import PACKAGE, UserError
from deploy.loading import load
from deploy.tasks.registry import model_of
from deploy.tasks.task import Model


class Pin(msgspec.Struct, frozen=True):
    """Which network to open, and how."""

    bundle: str
    """Its folder, as an absolute path."""
    digest: str
    """Of its manifest, which has the checksums of its files."""
    backend: str
    precision: str
    threads: int | None
    code: str
    """Digest of this package's source: versions may be equal while clones differ."""
    gpu: tuple[tuple[str, Any], ...] = ()
    """Further arguments of `deploy.loading.load`, for TensorRT."""

    @property
    def engine(self) -> str:
        """`deploy.backends.engine.Engine.name`."""
        return f"{self.backend} {self.precision}"


class Opened(NamedTuple):
    """A network in this process."""

    model: Model
    numbers: str
    """Digest of what it computes here for the bundle's golden inputs; "" without them. It differs where CPUs compute
    other last digits."""


def pin(bundle: Path, backend: str, precision: str, threads: int | None, **gpu: Any) -> Pin:
    """Choose the network of a bundle for all processes.

    Args:
        bundle: its folder.
        backend: as `deploy.loading.load` takes it; "auto" measures on this machine.
        precision: as `deploy.loading.load` takes it.
        threads: CPU threads of one call; None: the backend's choice.
        gpu: further arguments of `load`, for TensorRT.

    Raises:
        UserError: as `load` does.
    """
    check_choice(backend, precision)
    manifest = read_manifest(bundle)
    if backend == "auto":
        backend, precision = load(bundle, backend, threads, precision=precision, **gpu).engine.name.split()
    elif backend in CPU:
        precision = cpu_precision(bundle, precision)
    elif precision == "auto":
        model_file(bundle, backend, precision)  # refuses a bundle without an engine
    chosen = (backend, precision, threads, code_digest(), tuple(sorted(gpu.items())))
    return Pin(str(bundle.absolute()), manifest.digest, *chosen)


def open_pinned(pin: Pin) -> Opened:
    """Open a network, once per process: further calls, of any thread, return the same one.

    Raises:
        UserError: as `check_pin`, or as `deploy.loading.load`.
    """
    with _LOCK:
        return _open(pin)


_LOCK = Lock()


@lru_cache(maxsize=4)
def _open(pin: Pin) -> Opened:
    folder = Path(pin.bundle)
    manifest = check_pin(pin)
    if pin.backend not in CPU:
        model = load(folder, pin.backend, precision=pin.precision, **dict(pin.gpu))
    else:
        setting = Setting(pin.backend, pin.precision, pin.threads)
        names = {setting.file(folder).name, *(manifest.files.keys() - KNOWN)}
        files = {name: entry for name, entry in manifest.files.items() if name in names}
        verify_files(folder, msgspec.structs.replace(manifest, files=files))
        model = model_of(manifest, open_cpu(folder, setting))
    check_pin(pin)  # files are opened by name: the bundle may have been replaced meanwhile
    return Opened(model, _numbers(folder, manifest, model))


def check_pin(pin: Pin) -> Manifest:
    """The manifest of a pinned bundle, as it is on this machine.

    Raises:
        UserError: it is missing, damaged, or that of another bundle; or the code of this package is another one.
    """
    if pin.code != code_digest():
        raise UserError(
            f"{PACKAGE}: is other code of edgedistill than that of the client; install the same on both"
        )
    manifest = read_manifest(pin.bundle)
    if manifest.digest != pin.digest:
        raise UserError(
            f"{pin.bundle}: is another bundle here (digest {manifest.digest[:12]}, not {pin.digest[:12]})"
        )
    return manifest


@cache
def code_digest() -> str:
    """SHA-256 of this package's source."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(PACKAGE).as_posix()} {len(content)} ".encode() + content)
    return digest.hexdigest()


def _numbers(folder: Path, manifest: Manifest, model: Model) -> str:
    if GOLDEN not in manifest.files:
        return ""
    logits = model.engine.run(read_golden(folder, manifest)["inputs"][:1])["logits"]
    return hashlib.sha256(np.ascontiguousarray(logits).tobytes()).hexdigest()
