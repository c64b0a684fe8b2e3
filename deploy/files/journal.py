"""The progress of a long run, in a file: its fingerprint, then a line for each thing that is finished."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from deploy.errors import UserError
from deploy.files.atomic import named_write_errors, sync_folder

Fingerprint = dict[str, Any]
"""Everything that the result depends on, by names that a user knows; JSON."""


class Journal:
    """A journal; `begin` or `resume` opens it.

    Args:
        out: the output of the run, in messages.
        path: the journal's file.
        is_entry: whether a line is the entry at this position; the first that is not, and all after it, are dropped.
    """

    def __init__(self, out: Path, path: Path, is_entry: Callable[[int, bytes], bool]) -> None:
        self.out, self.path, self._is_entry = out, path, is_entry
        self._file: BinaryIO | None = None

    def exists(self) -> bool:
        """Whether an earlier run has begun it."""
        return bool(self._lines())

    def entries(self) -> list[bytes]:
        """What an earlier run finished, as `add` took it; empty without one."""
        found: list[bytes] = []
        for position, line in enumerate(self._lines()[1:]):
            if not self._is_entry(position, line):
                break
            found.append(line)
        return found

    def begin(self, fingerprint: Fingerprint) -> None:
        """Start a new journal."""
        with named_write_errors(self.out, self.path):
            self._file = open(self.path, "wb", opener=no_link)  # noqa: SIM115 — `close` closes it
            self._append(msgspec.json.encode(fingerprint), sync=True)
            sync_folder(self.path.parent)

    def resume(self, fingerprint: Fingerprint) -> list[bytes]:
        """Continue the journal, and return its `entries`.

        Raises:
            UserError: the earlier run had another fingerprint.
        """
        lines = self._lines()
        try:
            before = msgspec.json.decode(lines[0])
        except (IndexError, msgspec.DecodeError):
            before = {}
        now = msgspec.json.decode(msgspec.json.encode(fingerprint))
        changed = [name for name in now if before.get(name) != now[name]]
        if changed:
            raise UserError(
                f"{self.out}: cannot be resumed, because {', '.join(changed)} changed since it was started; "
                f"undo the change, or remove {self.path} to start over"
            )
        entries = self.entries()
        with named_write_errors(self.out, self.path):
            self._file = open(self.path, "r+b", opener=no_link)  # noqa: SIM115
            self._file.truncate(sum(len(line) + 1 for line in lines[: len(entries) + 1]))
            self._file.seek(0, os.SEEK_END)
        return entries

    def add(self, entry: bytes, sync: bool = True) -> None:
        """Record that something is finished; call it only after that is on disk.

        Args:
            entry: a line without its end.
            sync: whether it must survive a power failure; a killed process loses nothing in any case.
        """
        with named_write_errors(self.out, self.path):
            self._append(entry, sync)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Close and remove it."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _append(self, line: bytes, sync: bool) -> None:
        assert self._file is not None
        self._file.write(line + b"\n")
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())

    def _lines(self) -> list[bytes]:
        """The complete lines; none without a file."""
        try:
            return self.path.read_bytes().split(b"\n")[:-1]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be read ({error.strerror}); remove it to start over"
            ) from error


def no_link(path: str, flags: int) -> int:
    """Open the journal itself: its name is known in advance, and a link there would have another file overwritten."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
