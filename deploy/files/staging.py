"""Replace a folder as a whole: at any moment its path holds either the old folder or the new one."""

import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deploy.files.atomic import is_stale, named_write_errors, sibling, siblings_of, sync_folder

RENAME_EXCHANGE = 2
"""Flag of Linux's renameat2: the two paths change places."""
AT_FDCWD = -100
NOT_SUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


@contextmanager
def staged(folder: Path, keep: Iterable[str] = ()) -> Iterator[Path]:
    """Create an empty sibling of `folder` that replaces it when the block ends, and is removed when the block fails.

    On Linux the two change places in one step, so that no reader finds the path empty and a kill loses nothing. Where a
    file system cannot do that, the old folder is renamed away first; a kill just then leaves it as a hidden sibling,
    which the next call puts back. What killed calls have left is removed.

    Args:
        folder: the folder to create or replace.
        keep: names of subfolders of the old folder that the new one gets, as hard links where the file system has them.

    Yields:
        The sibling, to be filled.

    Raises:
        UserError: the disk is full or the folder cannot be written; the message names `folder`.
    """
    recover(folder)
    staging = sibling(folder)
    with named_write_errors(folder, staging):
        staging.mkdir(parents=True)
    try:
        yield staging
        with named_write_errors(folder, staging):
            for name in keep:
                if (folder / name).is_dir():
                    shutil.copytree(folder / name, staging / name, copy_function=_link)
            sync_folder(staging)
            _replace(staging, folder)
            sync_folder(folder.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def recover(folder: Path) -> None:
    """Remove what killed processes have left beside a folder; put it back if one was killed while replacing it."""
    for leftover in sorted(filter(is_stale, siblings_of(folder))):
        if leftover.name.endswith(OLD) and not folder.exists():
            with suppress(OSError):
                leftover.rename(folder)
                continue
        _remove(leftover)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes have left inside a folder and its subfolders."""
    for path in list(folder.rglob(".*.tmp")):
        if is_stale(path):
            _remove(path)


OLD = ".old.tmp"
"""Ending of the name of an old folder on its way out."""


def _replace(new: Path, folder: Path) -> None:
    """Put `new` where `folder` is; the old folder, if there is one, is at `new` afterwards."""
    if not folder.exists():
        new.rename(folder)
    elif not exchange(new, folder):
        old = new.with_name(new.name.removesuffix(".tmp") + OLD)
        folder.rename(old)
        try:
            new.rename(folder)
        except BaseException:
            old.rename(folder)
            raise
        old.rename(new)


def exchange(one: Path, other: Path) -> bool:
    """Let two paths of a file system change places, in one step.

    Returns:
        Whether the system can do that; if not, nothing has changed.

    Raises:
        OSError: a path is missing or may not be changed.
    """
    function = _renameat2()
    if function is None:
        return False
    if function(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in NOT_SUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _renameat2() -> "ctypes._NamedFuncPointer | None":
    """The function of the C library; None where it has none."""
    if not sys.platform.startswith("linux"):
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return function


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
