"""How far a run has got, in a file beside its output: what it was begun with, then a line for each finished piece."""

import os
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from deploy.errors import UserError
from deploy.files.atomic import named_write_errors, sync_folder

Fingerprint = dict[str, Any]
"""What the result depends on, by names that mean something to a user; JSON."""


class Journal:
    """The journal of the output `out`; `begin` or `resume` opens it."""

    def __init__(self, out: Path) -> None:
        self.out, self.path = out, out.with_name(f".{out.name}.journal")
        self._file: BinaryIO | None = None

    def finished(self) -> int:
        """Pieces that an earlier run has finished; 0 where there was none."""
        lines = self._lines()
        numbers = [str(i).encode() for i in range(len(lines))]
        return sum(line == number for line, number in zip(lines[1:], numbers, strict=False))

    def begin(self, fingerprint: Fingerprint) -> None:
        """Write it anew."""
        with named_write_errors(self.out, self.path):
            self._file = open(self.path, "wb")  # noqa: SIM115 — `close` closes it
            self._append(msgspec.json.encode(fingerprint))
            sync_folder(self.path.parent)

    def resume(self, fingerprint: Fingerprint) -> int:
        """Go on with it, and return the number of finished pieces; `UserError` where it is of another run."""
        lines = self._lines()
        try:
            before = msgspec.json.decode(lines[0])
        except (IndexError, msgspec.DecodeError):
            before = {}
        now = msgspec.json.decode(msgspec.json.encode(fingerprint))
        changed = [name for name in now if before.get(name) != now[name]]
        if changed:
            raise UserError(
                f"{self.out}: cannot be resumed, another {', '.join(changed)} than when it was begun; "
                f"put that back, or remove {self.path} to start over"
            )
        count = self.finished()
        with named_write_errors(self.out, self.path):
            self._file = open(self.path, "r+b")  # noqa: SIM115
            self._file.truncate(sum(len(line) + 1 for line in lines[: count + 1]))  # a line may have been cut
            self._file.seek(0, os.SEEK_END)
        return count

    def add(self, piece: int) -> None:
        """Note, durably, that the piece of this index is finished; call it only when its pixels are on the disk."""
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
        """Whole lines; none where there is no file."""
        try:
            return self.path.read_bytes().split(b"\n")[:-1]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be read ({error.strerror}); remove it to start over"
            ) from error
