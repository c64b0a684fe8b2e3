"""The progress of a run, in a file beside its output: its fingerprint, then a line for each finished piece."""

import os
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from deploy.errors import UserError
from deploy.files.atomic import named_write_errors, sync_folder

Fingerprint = dict[str, Any]
"""Everything that the result depends on, by names that a user knows; JSON."""


class Journal:
    """The journal of the output file `out`; `begin` or `resume` opens it."""

    def __init__(self, out: Path) -> None:
        self.out, self.path = out, out.with_name(f".{out.name}.journal")
        self._file: BinaryIO | None = None

    def finished(self) -> int:
        """Number of pieces that an earlier run finished; 0 without one."""
        lines = self._lines()
        numbers = [str(i).encode() for i in range(len(lines))]
        return sum(line == number for line, number in zip(lines[1:], numbers, strict=False))

    def begin(self, fingerprint: Fingerprint) -> None:
        """Start a new journal."""
        with named_write_errors(self.out, self.path):
            self._file = open(self.path, "wb", opener=_no_link)  # noqa: SIM115 — `close` closes it
            self._append(msgspec.json.encode(fingerprint))
            sync_folder(self.path.parent)

    def resume(self, fingerprint: Fingerprint) -> int:
        """Continue the journal, and return the number of finished pieces.

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
        count = self.finished()
        with named_write_errors(self.out, self.path):
            self._file = open(self.path, "r+b", opener=_no_link)  # noqa: SIM115
            self._file.truncate(sum(len(line) + 1 for line in lines[: count + 1]))  # drops an incomplete line
            self._file.seek(0, os.SEEK_END)
        return count

    def add(self, piece: int) -> None:
        """Record durably that this piece is finished; call it only after its pixels are on disk."""
        with named_write_errors(self.out, self.path):
            self._append(str(piece).encode())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Close and remove it."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _append(self, line: bytes) -> None:
        assert self._file is not None
        self._file.write(line + b"\n")
        self._file.flush()
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


def _no_link(path: str, flags: int) -> int:
    """Open the journal itself: its name is known in advance, and a link there would have another file overwritten."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
