"""The engines that a user trusts on this machine: built here, or trusted by `edgedistill trust`.

An engine is native code, and a checksum beside it proves nothing: whoever can write the one can write the other. So a
receipt for each trusted engine is kept outside of bundles, in a folder that only the user can write:

    <state folder>/trusted-engines/<SHA-256 of the engine>.json

One file per engine: any number of processes may add and remove receipts at once.
"""

import os
import stat
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import msgspec

from deploy.errors import UserError
from deploy.files.atomic import atomic_write, json_bytes
from deploy.files.json_files import one_line
from deploy.files.user_folders import state_folder

MOST_BYTES = 64 << 10
"""Largest receipt that is read."""

_here: set[str] = set()
"""Engines that this process has trusted: it may load them even where no receipt can be written."""


class TrustReceipt(msgspec.Struct, frozen=True):
    """Why an engine is trusted."""

    sha256: str
    """Of the engine."""
    engine: str
    """Where it was then; it may be copied."""
    how: Literal["built", "trusted"]
    """"built": compiled on this machine by this user; "trusted": by `edgedistill trust`."""
    when: str
    """Date and time, UTC."""


def trust_folder() -> Path:
    """The folder of the receipts; `UserError` where the user has no home folder."""
    try:
        return state_folder() / "trusted-engines"
    except RuntimeError as error:
        raise UserError(
            "this user has no home folder to keep trusted engines in; set EDGEDISTILL_STATE"
        ) from error


def trust(digest: str, engine: Path, how: Literal["built", "trusted"]) -> Path:
    """Trust an engine from now on.

    Args:
        digest: SHA-256 of the engine.
        engine: its path, for the receipt.
        how: see `TrustReceipt.how`.

    Returns:
        The receipt.

    Raises:
        UserError: it cannot be written; this process trusts the engine all the same.
    """
    _here.add(digest)
    path = trust_folder() / f"{digest}.json"
    when = datetime.now(timezone.utc).isoformat(timespec="seconds")
    receipt = TrustReceipt(digest, str(engine.resolve()), how, when)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path.parent}: cannot be made ({error.strerror}); set EDGEDISTILL_STATE") from error
    with atomic_write(path) as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(json_bytes(receipt))
    return path


def distrust(digest: str) -> bool:
    """Trust an engine no longer; returns whether it was trusted.

    Raises:
        UserError: its receipt cannot be removed.
    """
    path = trust_folder() / f"{digest}.json"
    known = digest in _here or path.exists()
    _here.discard(digest)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be removed ({error.strerror})") from error
    return known


def why_untrusted(digest: str) -> str:
    """Why an engine is not trusted, in words that follow "it"; "" if it is.

    Args:
        digest: SHA-256 of the engine's bytes, as they will be loaded.
    """
    if digest in _here:
        return ""
    try:
        path = trust_folder() / f"{digest}.json"
        if unsafe := _unsafe(path.parent.stat(), path.parent):
            return unsafe
        with open(path, "rb") as file:
            if unsafe := _unsafe(os.fstat(file.fileno()), path):
                return unsafe
            receipt = msgspec.json.decode(file.read(MOST_BYTES), type=TrustReceipt)
    except (FileNotFoundError, NotADirectoryError):
        return "was neither built nor trusted on this machine by this user"
    except (UserError, OSError, msgspec.MsgspecError) as error:
        return f"has a receipt that cannot be read ({one_line(error)})"
    return "" if receipt.sha256 == digest else f"has a receipt that is of another engine ({path})"


def _unsafe(status: os.stat_result, path: Path) -> str:
    """Why a file or folder could be another user's work; "" if it cannot."""
    if status.st_uid not in (os.geteuid(), 0):
        return f"has a receipt that belongs to another user ({path})"
    if stat.S_IMODE(status.st_mode) & 0o022:
        return f"has a receipt that other users could have written (chmod go-w {path})"
    return ""
