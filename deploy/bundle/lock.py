"""A lock on a bundle: programs that change one bundle at once do so one after the other.

The lock is on the bundle's folder. Readers need none: they see the old bundle or the new one.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.errors import UserError
from deploy.files.lock import acquire

SECONDS = 300.0
"""How long a change waits for another one; each takes about as long as copying the bundle's files."""


@contextmanager
def locked(folder: Path, seconds: float = SECONDS) -> Iterator[None]:
    """Keep other programs and threads from changing the bundle within the block; not reentrant.

    Where there is no folder yet, or its file system cannot lock, the block runs without a lock.

    Args:
        folder: the bundle.
        seconds: how long to wait for others.

    Raises:
        UserError: the others were not ready in time.
    """
    descriptor = _acquire(folder, time.monotonic() + seconds)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _acquire(folder: Path, end: float) -> int | None:
    """The locked descriptor of the folder that the path leads to; None where there is none."""
    while True:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:  # none yet, or not a folder: whoever writes it says so
            return None
        mine = acquire(descriptor, end - time.monotonic())
        if mine and _is(folder, descriptor):
            return descriptor
        os.close(descriptor)  # it was replaced while we waited: the lock of the new folder counts
        if not mine:
            raise UserError(f"{folder}: another program is changing this bundle; run again when it has ended")


def _is(folder: Path, descriptor: int) -> bool:
    """Whether the path still leads to the open folder."""
    try:
        return os.path.samestat(folder.stat(), os.fstat(descriptor))
    except OSError:
        return False
