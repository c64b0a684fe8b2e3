"""Where a bundle lies: in the folder that was given or, of a run, in that of its student."""

from pathlib import Path

from deploy.bundle.manifest import MANIFEST
from deploy.errors import UserError

STUDENT = "student.bundle"
"""Name of the bundle that a run makes."""


def bundle_in(path: str | Path) -> Path:
    """A folder itself or, if it is that of a run, its student's bundle."""
    folder = Path(path)
    is_run = not (folder / MANIFEST).exists() and (folder / STUDENT).is_dir()
    return folder / STUDENT if is_run else folder


def find_bundle(path: str | Path) -> Path:
    """The bundle in a folder: the folder itself or, of a run, its student; it is not opened.

    Raises:
        UserError: the folder is neither.
    """
    path = bundle_in(path)
    if (path / MANIFEST).exists() or path.name == STUDENT:
        return path
    what = f"holds neither {MANIFEST} nor {STUDENT}" if path.is_dir() else "no such folder"
    raise UserError(f"{path}: {what}; give the folder of a run or of a bundle")
