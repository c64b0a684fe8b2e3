"""Folders that are replaced as a whole: what is at their place is at any moment the old one or the new one."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.files.atomic import named_write_errors, sibling, sync_folder


@contextmanager
def staged(folder: Path, keep: Iterable[str] = ()) -> Iterator[Path]:
    """An empty sibling of `folder` that takes its place when the block ends, and is removed when it fails.

    The subfolders of the old folder that `keep` names move into the new one, and back should the exchange fail.
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
