"""The work folder of a run: what is done, so that `--resume` goes on; it is removed when all is done.

OUT/.predict-many/journal        how the run was started, then a line for each input that is done
OUT/.predict-many/RUN-ID/        what workers are writing; a run that was killed leaves it to the next one
OUT/.predict-many/chunks/NAME/   finished chunks of a raster
"""

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import msgspec

from deploy.cluster.outcome import Done
from deploy.errors import UserError
from deploy.files.atomic import named_write_errors, sync_folder
from deploy.files.journal import Fingerprint, Journal
from deploy.files.lock import acquire

FOLDER = ".predict-many"
_SYNC = 1.0
"""Seconds between two syncs of the journal: what a power failure makes a resumed run do again."""


class Input(Protocol):
    """An image or a raster; its attributes are those of `Done`."""

    @property
    def input(self) -> str: ...
    @property
    def stamp(self) -> str: ...
    @property
    def name(self) -> str: ...


class Work:
    """The open work folder of an output; `claimed` opens it."""

    def __init__(self, folder: Path, out: Path) -> None:
        self.folder, self.out = folder, out
        self.chunks = folder / "chunks"
        self.run = folder / secrets.token_hex(8)
        """Folder of this run's unfinished files; its name is not known before."""
        self.journal = Journal(out, folder / "journal", _is_record)
        self.done: dict[str, Done] = {}
        """What earlier runs have done, by the name of the input."""
        self._synced = time.monotonic()

    def is_done(self, one: Input) -> bool:
        """Whether an earlier run has predicted this very input, and its results are still there."""
        found = self.done.get(one.input)
        if found is None or (found.stamp, found.name) != (one.stamp, one.name):
            return False
        return all(_size(self.out / file) == size for file, size in found.files.items())

    def add(self, done: Done) -> None:
        """Record an input that is done."""
        now = time.monotonic()
        due = now - self._synced > _SYNC
        self.journal.add(msgspec.json.encode(done), sync=due)
        if due:
            self._synced = now

    def remove(self) -> None:
        """Remove it: there is nothing to resume."""
        self.journal.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def drop_chunks(self, folder: Path) -> None:
        """Remove the chunks of a raster whose GeoTIFF is complete."""
        shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Close it. What is done stays for the next run, if anything is."""
        self.journal.close()
        shutil.rmtree(self.run, ignore_errors=True)
        if self._is_idle():
            self.remove()

    def _is_idle(self) -> bool:
        """Whether there is nothing to resume."""
        return not self.journal.entries() and not any(self.chunks.glob("*/*.npy"))

    def begin(self, fingerprint: Fingerprint, resume: bool) -> None:
        """Start a run, or continue the one that left the folder."""
        if not resume and not self._is_idle():
            raise UserError(
                f"{self.out}: an interrupted run left {len(self.journal.entries())} finished inputs or parts of some; "
                f"add --resume to continue it, or remove {self.folder} to start over"
            )
        if resume and self.journal.exists():
            entries = self.journal.resume(fingerprint)
            self.done = {
                one.input: one for one in (msgspec.json.decode(entry, type=Done) for entry in entries)
            }
        else:
            self.journal.begin(fingerprint)
        for other in self.folder.iterdir():  # what workers of a killed run were writing
            if other not in (self.journal.path, self.chunks):
                shutil.rmtree(other, ignore_errors=True)
        with named_write_errors(self.out, self.run):
            self.run.mkdir()
            self.chunks.mkdir(exist_ok=True)


@contextmanager
def claimed(folder: Path, out: Path, fingerprint: Fingerprint, resume: bool) -> Iterator[Work]:
    """Open the work folder of an output for one client at a time. It stays if anything is done that is not removed.

    Args:
        folder: the work folder.
        out: folder of the results.
        fingerprint: everything that the results depend on, but for the inputs themselves.
        resume: continue an interrupted run, if there is one.

    Raises:
        UserError: another client works there; an interrupted run is there and `resume` is False, or it had another
            fingerprint; or the folder cannot be written.
    """
    with named_write_errors(out, folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    work, mine = Work(folder, out), acquire(descriptor)
    try:
        if not mine:
            raise UserError(
                f"{out}: another predict-many is writing there; wait for it, or give another folder"
            )
        work.begin(fingerprint, resume)
        yield work
    finally:
        if mine:
            work.close()
        os.close(descriptor)


def publish(folder: Path, out: Path) -> dict[str, int]:
    """Move finished files of a task to where they belong, each in one step; their names and bytes."""
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    with named_write_errors(out, folder):
        for name in files:
            os.replace(folder / name, out / name)
        sync_folder(out)
    return files


@contextmanager
def staging(run: Path, out: Path) -> Iterator[Path]:
    """A folder for the unfinished files of a task.

    Raises:
        UserError: the run's folder is gone, because the client has ended; or it cannot be written.
    """
    folder = run / secrets.token_hex(8)
    with named_write_errors(out, folder):
        folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_record(_: int, line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=Done)
    except msgspec.MsgspecError:
        return False
    return True


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
