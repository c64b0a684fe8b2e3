"""Engines that were built before, and the folder that they are kept in."""

import os
from collections.abc import Callable
from pathlib import Path

from deploy.bundle.engine_files import Sidecar, read_engine, read_sidecar
from deploy.errors import UserError
from deploy.signing.trust_store import why_untrusted


def kept(path: Path, key: str, say: Callable[[str], object]) -> Sidecar | None:
    """The sidecar of an undamaged engine that this user has built with this key before; None if there is none."""
    if not path.is_file() or not path.with_suffix(".json").is_file():
        return None
    try:
        sidecar = read_sidecar(path)
        read_engine(path, sidecar)
    except UserError as error:
        say(f"{error}; building it again")
        return None
    if sidecar.key != key:
        return None
    if why := why_untrusted(sidecar.sha256):
        say(f"{path}: {why}; building it again")
        return None
    return sidecar


def check_writable(folder: Path) -> None:
    """Refuse a read-only folder now (`UserError`), not after a build of many minutes."""
    place = folder if folder.exists() else folder.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise UserError(f"{folder}: cannot be written; copy the bundle to a writable folder")
