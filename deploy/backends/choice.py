"""What `auto` chose, remembered in the bundle's folder `engines/` beside the engines.

It is not part of the bundle: where it cannot be read or written, `auto` measures again.
"""

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import msgspec

from deploy import host
from deploy.backends.setting import Setting
from deploy.bundle.engine_files import engines_folder
from deploy.bundle.lock import locked
from deploy.bundle.manifest import Manifest
from deploy.errors import UserError
from deploy.files.atomic import write_json
from deploy.files.json_files import read_json

FILE = "auto.json"


class Choice(msgspec.Struct, frozen=True):
    """The chosen setting, and the measurements behind the choice."""

    setting: Setting
    milliseconds: Mapping[str, float]
    """Time of one inference (`deploy.backends.race.time_in_turns`), by setting in words."""
    agreement: Mapping[str, float]
    """Share of the golden labels that each backend and precision reproduced; empty where there are none."""


class _Choices(msgspec.Struct, frozen=True):
    """`auto.json`."""

    bundle: str
    """Digest of the manifest that the choices are for."""
    choices: Mapping[str, Choice] = {}
    """Choices by everything else that they depend on, in words."""


def key(backends: Sequence[str], threads: int | None, precision: str) -> str:
    """Everything that the speed depends on apart from the model, in words: what was asked for, machine, packages."""
    # A virtual machine may lack features of its CPU model.
    flags = hashlib.sha256(" ".join(sorted(host.cpu_flags())).encode()).hexdigest()[:8]
    quota = f" of which {share:g} at a time" if (share := host.cpu_quota()) else ""
    name = host.device() or host.cpu_name()
    machine = f"{name} {platform.machine()} ({flags}), {host.usable_cores()} cores{quota}"
    return ", ".join([precision, f"threads {threads or 'auto'}", machine, *map(installed_version, backends)])


def installed_version(package: str) -> str:
    """Name and version of an installed package, such as "onnxruntime_gpu-1.32.0", without importing anything.

    `importlib.metadata` would take 10 ms, a tenth of a start.
    """
    spec = find_spec(package)
    folder = Path(spec.origin).parent.parent if spec and spec.origin else Path()
    for pattern in (f"{package}-*.dist-info", f"{package}_*.dist-info"):
        for path in sorted(folder.glob(pattern)):
            return path.name.removesuffix(".dist-info")
    return package


def recall(folder: Path, manifest: Manifest, wanted: str) -> Choice | None:
    """The choice that is remembered under this key for exactly this bundle; None if there is none that can be read."""
    return _read(engines_folder(folder) / FILE, manifest).get(wanted)


def remember(folder: Path, manifest: Manifest, wanted: str, choice: Choice) -> None:
    """Remember a choice under a key; nothing is remembered in a read-only bundle, or one that is being changed."""
    with suppress(UserError, OSError), locked(folder, seconds=1):
        path = engines_folder(folder) / FILE
        write_json(path, _Choices(manifest.digest, {**_read(path, manifest), wanted: choice}))


def can_remember(folder: Path) -> bool:
    """Whether choices can be written for this bundle."""
    path = engines_folder(folder)
    return os.access(path if path.exists() else folder, os.W_OK)


def _read(path: Path, manifest: Manifest) -> Mapping[str, Choice]:
    """The stored choices for this bundle; none where the file is missing, damaged, or for another bundle."""
    try:
        stored = read_json(path, _Choices)
    except (OSError, ValueError):
        return {}
    return stored.choices if stored.bundle == manifest.digest else {}
