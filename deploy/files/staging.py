"""Replace a folder as a whole: at any moment its path holds either the old folder or the new one."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.files.atomic import named_write_errors, sibling, sync_folder


@contextmanager
def staged(folder: Path, keep: Iterable[str] = ()) -> Iterator[Path]:
    """Create an empty sibling of `folder` that replaces it when the block ends, and is removed when the block fails.

    Args:
        folder: the folder to create or replace.
        keep: names of subfolders that move from the old folder into the new one, and back if the exchange fails.

    Yields:
        The sibling, to be filled.

    Raises:
        UserError: the disk is full or the folder cannot be written; the message names `folder`.
    """
    staging, old, keep = sibling(folder), sibling(folder), tuple(keep)
    with named_write_errors(folder, staging):
        staging.mkdir(parents=True)
    try:
        yield staging
        with named_write_errors(folder, staging):
            sync_folder(staging)
            if folder.exists():
                folder.rename(old)
                _move(keep, old, staging)
            staging.rename(folder)
            sync_folder(folder.parent)
    finally:
        if old.exists() and not folder.exists():  # interrupted between the renames
            _move(keep, staging, old)
            old.rename(folder)
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _move(names: Iterable[str], source: Path, target: Path) -> None:
    for name in names:
        if (source / name).is_dir():
            (source / name).rename(target / name)
