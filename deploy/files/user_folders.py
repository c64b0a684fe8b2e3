"""Folders of the user who runs the program (XDG Base Directory Specification)."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$EDGEDISTILL_CACHE`, else `edgedistill` in the user's cache folder: for what can be made again at any time."""
    return _folder("EDGEDISTILL_CACHE", "XDG_CACHE_HOME", ".cache")


def state_folder() -> Path:
    """`$EDGEDISTILL_STATE`, else `edgedistill` in the user's state folder: for what the user has decided.

    Raises:
        RuntimeError: the user has no home folder.
    """
    return _folder("EDGEDISTILL_STATE", "XDG_STATE_HOME", ".local/state")


def _folder(own: str, standard: str, default: str) -> Path:
    if folder := os.environ.get(own):
        return Path(folder)
    return Path(os.environ.get(standard) or Path.home() / default) / "edgedistill"
