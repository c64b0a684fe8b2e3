"""The unfinished result on disk, beside the output: plain arrays, which survive a crash, and a journal.

The output file is written at the end from the complete arrays, so it does not depend on interruptions of the run.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from deploy.errors import UserError
from deploy.files.atomic import named_write_errors
from deploy.files.journal import Fingerprint, Journal, no_link
from deploy.files.lock import acquire
from deploy.raster.grid import Grid, Piece


class Planes:
    """Planes K×H×W in a file: plane by plane, and block by block in each, so that pieces are contiguous."""

    def __init__(self, out: Path, path: Path, planes: int, dtype: str, grid: Grid, resume: bool) -> None:
        self.out, self.path, self.grid = out, path, grid
        self.planes, self.dtype = planes, np.dtype(dtype)
        size = planes * grid.height * grid.width * self.dtype.itemsize
        if resume and (not path.is_file() or path.stat().st_size != size):
            raise UserError(
                f"{path}: is missing or incomplete, so the run cannot be resumed; run without --resume"
            )
        with named_write_errors(out, path):
            self._file: BinaryIO = open(path, "r+b" if resume else "w+b")  # noqa: SIM115 — `close` closes it
            self._file.truncate(size)

    def write(self, piece: Piece, array: np.ndarray) -> None:
        """Write the values of a piece, planes×rows×columns, durably."""
        with named_write_errors(self.out, self.path):
            for plane, values in enumerate(array):
                self._file.seek(self._offset(plane, piece.block.begin, piece.block.width, piece.top))
                self._file.write(np.ascontiguousarray(values, self.dtype).data)
            self._file.flush()
            os.fsync(self._file.fileno())

    def read(self, plane: int, top: int, bottom: int) -> np.ndarray:
        """Rows [top, bottom) of a plane, full width."""
        return np.concatenate(
            [self._read(plane, b.begin, b.width, top, bottom) for b in self.grid.blocks], axis=1
        )

    def remove(self) -> None:
        """Close and remove the file."""
        self.close()
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self, plane: int, begin: int, width: int, top: int, bottom: int) -> np.ndarray:
        self._file.seek(self._offset(plane, begin, width, top))
        values = np.frombuffer(self._file.read((bottom - top) * width * self.dtype.itemsize), self.dtype)
        return values.reshape(bottom - top, width)

    def _offset(self, plane: int, begin: int, width: int, row: int) -> int:
        pixels = (plane * self.grid.width + begin) * self.grid.height + row * width
        return pixels * self.dtype.itemsize


class Parts:
    """A sink for the unfinished result of the output file `out`; `open_parts` opens it."""

    def __init__(self, out: Path, fingerprint: Fingerprint, resume: bool) -> None:
        self.out, self.fingerprint, self.resume = out, fingerprint, resume
        self.journal = journal_of(out)
        self.labels: Planes | None = None
        self.probabilities: Planes | None = None

    def start(self, grid: Grid, classes: int, probabilities: str | None) -> int:
        """See `Sink.start`."""
        resume = self.resume and bool(self.journal.entries())
        count = len(self.journal.resume(self.fingerprint)) if resume else 0
        path = self.out.with_name(f".{self.out.name}.labels")
        self.labels = Planes(self.out, path, 1, "uint8", grid, resume)
        if probabilities is not None:
            path = self.out.with_name(f".{self.out.name}.probabilities")
            self.probabilities = Planes(self.out, path, classes, probabilities, grid, resume)
        if not resume:
            self.journal.begin(self.fingerprint)
        return count

    def write(self, piece: Piece, labels: np.ndarray, probabilities: np.ndarray | None) -> None:
        """See `Sink.write`."""
        assert self.labels is not None
        self.labels.write(piece, labels[None])
        if self.probabilities is not None and probabilities is not None:
            self.probabilities.write(piece, probabilities)
        self.journal.add(str(piece.index).encode())  # only now: its pixels are on disk

    def close(self) -> None:
        """Close the files; a later run can resume with them."""
        for file in self._files():
            file.close()

    def remove(self) -> None:
        """Remove the files, after the output has been written."""
        for file in self._files():
            file.remove()

    def _files(self) -> list["Planes | Journal"]:
        files = (self.labels, self.probabilities, self.journal)
        return [file for file in files if file is not None]


def journal_of(out: Path) -> Journal:
    """The journal of an output file: the numbers of the finished pieces, in their order."""
    path = out.with_name(f".{out.name}.journal")
    return Journal(out, path, lambda position, line: line == str(position).encode())


@contextmanager
def open_parts(out: Path, fingerprint: Fingerprint, resume: bool) -> Iterator[Parts]:
    """Open the unfinished result of an output file. Its files stay on disk unless `Parts.remove` is called.

    Args:
        out: the output file.
        fingerprint: everything that the result depends on.
        resume: continue an interrupted run, if there is one.

    Raises:
        UserError: the output exists, another command is writing it, or there is an interrupted run and `resume` is
            False.
    """
    _check_new(out)
    parts = Parts(out, fingerprint, resume)
    with _claimed(out, parts.journal.path):
        _check_new(out)  # the other command may have ended since
        count = len(parts.journal.entries())
        if count and not resume:
            raise UserError(
                f"{out}: an interrupted run left {count} finished parts; add --resume to continue it, "
                f"or remove {parts.journal.path} to start over"
            )
        try:
            yield parts
        finally:
            parts.close()


def _check_new(out: Path) -> None:
    if out.exists():
        raise UserError(f"{out}: exists; remove it or choose another name")


@contextmanager
def _claimed(out: Path, journal: Path) -> Iterator[None]:
    """Keep other commands from writing the same output; the lock is on its journal, which ends with the run."""
    with named_write_errors(out, journal):
        out.parent.mkdir(parents=True, exist_ok=True)
        descriptor = no_link(str(journal), os.O_RDWR | os.O_CREAT)
    try:
        if not acquire(descriptor) or not _is(journal, descriptor):
            raise UserError(f"{out}: another command is writing it; wait for it, or choose another name")
        try:
            yield
        finally:
            if _is(journal, descriptor) and os.fstat(descriptor).st_size == 0:  # nothing has begun
                journal.unlink()
    finally:
        os.close(descriptor)


def _is(path: Path, descriptor: int) -> bool:
    """Whether the path still leads to the open file: a command that ends removes its journal."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
