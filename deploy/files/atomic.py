"""Files that are either complete or absent, and their checksums."""

import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal

import msgspec

from deploy.errors import DISK_FULL, UserError


@contextmanager
def atomic_write(path: str | Path, mode: Literal["wb", "w"] = "wb") -> Iterator[IO[Any]]:
    """Open `path` for writing so that it never exists half-written: the file appears, synced, when the block ends.

    Missing parent folders are created. Until the end everything goes to a hidden sibling, which any exception removes.

    Args:
        path: the file to create or replace.
        mode: "wb", or "w" for UTF-8 text.

    Yields:
        The open file.

    Raises:
        UserError: `path` is a folder, the disk is full or the folder cannot be written; the message names `path`.
    """
    path = Path(path)
    temporary = sibling(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the name of a file, such as {path / 'NAME'}")
    with named_write_errors(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Not "wb": into such a file `numpy.save` writes by itself, and hides why it could not.
            with open(
                temporary, "w" if mode == "w" else "w+b", encoding="utf-8" if mode == "w" else None
            ) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            _keep_mode(path, temporary)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


@contextmanager
def named_write_errors(path: Path, temporary: Path) -> Iterator[None]:
    """Turn an `OSError` raised while `path` is written via `temporary` into a one-line `UserError` naming `path`."""
    try:
        yield
    except OSError as error:
        written = (path, *path.parents, temporary, *temporary.parents)
        # An error that names another file came from reading that file inside the block: it is passed on unchanged.
        if error.filename is not None and Path(error.filename) not in written:
            raise
        if error.errno in DISK_FULL:
            raise UserError(f"{path}: the disk is full; free some space and run again") from error
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); choose another folder"
        ) from error


def _keep_mode(path: Path, temporary: Path) -> None:
    """Give a file that replaces another the permissions of the other."""
    with suppress(FileNotFoundError):
        temporary.chmod(stat.S_IMODE(path.stat().st_mode))


def require_name(path: Path) -> Path:
    """Return a path of which something can be made, and beside it.

    Raises:
        UserError: it has no name of its own, as "." and "/" have none.
    """
    if path.name in ("", ".."):
        raise UserError(f"{path}: is a folder that exists; give a name, such as {path / 'NAME'}")
    return path


def sibling(path: Path) -> Path:
    """Return a new hidden name beside `path`, on the same file system, so that a rename to `path` is atomic.

    It holds the number of this process, so that others can tell what a killed one has left (see `is_stale`). A long
    name is cut, as file systems limit the length.

    Raises:
        UserError: as `require_name` does.
    """
    return require_name(path).with_name(f".{_cut(path.name)}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def siblings_of(path: Path) -> list[Path]:
    """The names that `sibling` has given for `path`, as far as they exist."""
    pattern = re.compile(rf"\.{re.escape(_cut(path.name))}{_MADE.pattern}")
    try:
        return [other for other in path.parent.iterdir() if pattern.fullmatch(other.name)]
    except OSError:
        return []


def is_stale(path: Path) -> bool:
    """Whether a file or folder was left by a process that no longer runs: `sibling` named it."""
    found = _MADE.search(path.name)
    if found is None:
        return False
    try:
        os.kill(int(found[1]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # another user's process
        return False
    return False


_MADE = re.compile(r"\.(\d+)-[0-9a-f]{8}(?:\.old)?\.tmp$")
"""The end of a name that `sibling` gives."""
_LONGEST = 180
"""Bytes of a name that `sibling` keeps; most file systems allow 255."""


def _cut(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:_LONGEST])


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power failure; a no-op where the system cannot sync folders."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: str | Path) -> str:
    """SHA-256 of the file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def json_bytes(record: msgspec.Struct) -> bytes:
    """Encode a record as indented JSON, in the order of its fields, with a trailing newline."""
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


def json_text(obj: object, ascii_only: bool = False) -> str:
    """Indented JSON with sorted keys and a trailing newline.

    Args:
        obj: JSON types, dataclasses, msgspec structs, numpy scalars and paths, nested in any way.
        ascii_only: escape all other characters.

    Raises:
        ValueError: `obj` contains NaN or an infinity, which JSON cannot express.
    """
    plain = msgspec.to_builtins(obj, enc_hook=_plain, str_keys=True)
    return json.dumps(plain, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=ascii_only) + "\n"


def write_json(path: str | Path, obj: object) -> None:
    """Write `obj` as `json_text`, atomically.

    Args:
        path: the file to create or replace.
        obj: as `json_text` takes it.

    Raises:
        ValueError: as `json_text` does.
        UserError: as `atomic_write` does.
    """
    text = json_text(obj)
    with atomic_write(path, "w") as file:
        file.write(text)


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):  # a numpy scalar, without importing numpy
        return value.item()  # pyright: ignore[reportAttributeAccessIssue]
    raise TypeError(f"cannot write a {type(value).__name__} as JSON")
