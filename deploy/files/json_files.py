"""Read JSON that may come from anywhere: files of bounded size, and one kind of error."""

from pathlib import Path
from typing import TypeVar

import msgspec

from deploy.errors import UserError
from deploy.text import shown

MOST_BYTES = 64 << 20
"""Largest file that is read: no record of this package comes near."""

T = TypeVar("T")


def read_json(path: Path, kind: type[T], most: int = MOST_BYTES) -> T:
    """Read a JSON file.

    Args:
        path: the file.
        kind: what it holds; `object` for anything.
        most: bytes of the largest file that is read.

    Raises:
        ValueError: it is larger, not JSON, nested too deeply, or of another kind; the message is one line.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"more than {most >> 20} MiB")
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ValueError(one_line(error)) from error


def read_record(path: Path, kind: type[T], remedy: str) -> T:
    """`read_json` of a file that this package has written.

    Raises:
        UserError: it cannot be read, or is damaged; the message names the file and ends with the remedy.
    """
    try:
        return read_json(path, kind)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)}); {remedy}") from error


def one_line(error: Exception) -> str:
    """What an error says, in one short line: it may cite a file's content, of any length and with any characters."""
    return shown(str(error)[:300])
