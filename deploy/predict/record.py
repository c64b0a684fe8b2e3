"""Which images of a folder of predictions are done, so that `--resume` goes on where a command was stopped."""

import json
from pathlib import Path
from typing import IO

import msgspec

from deploy.errors import UserError

NAME = ".predictions.jsonl"


class Done(msgspec.Struct, frozen=True):
    """An image whose files have been written."""

    path: str
    """Absolute."""
    bytes: int
    modified_ns: int
    files: tuple[str, ...]
    """Names in the folder."""
    name: str = ""
    """What the names of its files begin with; records of earlier versions do not say it."""


class Record:
    """The record in a folder: a first line of what made the predictions, and a line for each image.

    Args:
        folder: of the predictions.
        made_by: bundle, engine and options by name; a folder is continued only with the same.
        resume: keep what is there.

    Raises:
        UserError: `resume`, but the folder was made otherwise, or its record is damaged.
    """

    def __init__(self, folder: Path, made_by: dict[str, str], resume: bool) -> None:
        self._folder, self._path = folder, folder / NAME
        folder.mkdir(parents=True, exist_ok=True)
        self._done: dict[str, Done] = {}
        self._owners: dict[str, str] = {}  # by the name of a file: the path of its image
        if resume and self._path.is_file():
            self._read(made_by)
            self._file = self._path.open("a", encoding="utf-8")
        else:
            self._file: IO[str] = self._path.open("w", encoding="utf-8")
            self._write(made_by)

    def names(self) -> dict[str, str]:
        """The names that images have got, by their absolute paths."""
        return {path: done.name for path, done in self._done.items() if done.name}

    def has(self, image: Path) -> bool:
        """Whether the image is as it was when its files were written, and they are still there."""
        done = self._done.get(str(image.resolve()))
        if done is None or not image.is_file():
            return False
        same = (done.bytes, done.modified_ns) == _stat(image)
        return same and all((self._folder / name).is_file() for name in done.files)

    def add(self, image: Path, name: str, files: tuple[Path, ...]) -> None:
        """Note that the files of an image are written; another image that had one of them is no longer done."""
        size, modified = _stat(image)
        done = Done(str(image.resolve()), size, modified, tuple(path.name for path in files), name)
        self._note(done)
        self._write(msgspec.to_builtins(done))

    def close(self) -> None:
        """Close the file; it stays for a later `--resume`."""
        self._file.close()

    def _note(self, done: Done) -> None:
        for name in done.files:
            owner = self._owners.get(name, done.path)
            if owner != done.path:
                self._done.pop(owner, None)
            self._owners[name] = done.path
        self._done[done.path] = done

    def _write(self, line: object) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def _read(self, made_by: dict[str, str]) -> None:
        lines = self._path.read_bytes().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]  # the last may be cut
        try:
            before = msgspec.json.decode(whole[0], type=dict[str, str]) if whole else {}
            done = [msgspec.json.decode(line, type=Done) for line in whole[1:]]
        except ValueError as error:
            raise UserError(f"{self._path}: is damaged; leave out --resume to predict all again") from error
        changed = [name for name in made_by if before.get(name) != made_by[name]]
        if changed:
            raise UserError(
                f"{self._folder}: was made with another {changed[0]}; choose another --out, or leave out --resume"
            )
        for one in done:
            self._note(one)
        if len(whole) < len(lines):
            self._path.write_bytes(b"".join(whole))


def _stat(image: Path) -> tuple[int, int]:
    found = image.stat()
    return found.st_size, found.st_mtime_ns
