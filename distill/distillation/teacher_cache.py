"""The teacher's outputs for a fixed set of augmented views, computed once and read from disk in every epoch.

A cache is a folder:

    cache.json     teacher, views, maps and data type of the rows
    logits.bin     one row per view, C×h×w numbers each; every feature map has such a file too
    chunks.bin     a SHA-256 over all maps for each chunk of rows; zeros for chunks that are not written yet

Rows are ordered by view, then by image. The space of all files is reserved before the first row is computed, so a full
disk is an error at the start. A chunk is valid once its checksum is written, so filling an interrupted cache continues
with the missing chunks, and the processes of a run fill a cache together. Runs fill it one after the other.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from deploy.errors import DISK_FULL, UserError
from deploy.files.atomic import named_write_errors, write_json
from deploy.files.lock import acquire
from distill.losses.distillation_loss import TeacherOutput

CHUNK_ROWS = 32
DIGEST = 32
NUMBERS = {"fp32": np.dtype("<f4"), "fp16": np.dtype("<f2"), "int8": np.dtype("i1")}
REMEDY = "delete the folder, or give another --distill.cache"


@dataclass(frozen=True)
class Layout:
    """Shapes and data type of the rows in a cache."""

    rows: int
    maps: Mapping[str, tuple[int, int, int]]
    """Channels, height and width of each map, including `logits`."""
    numbers: str
    """Data type, a key of `NUMBERS`; int8 maps have a float32 scale per channel and row, in `NAME.scale.bin`."""

    @property
    def files(self) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
        """Data type and shape of the array in each file, rows first."""
        files: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
        for name, shape in self.maps.items():
            files[f"{name}.bin"] = NUMBERS[self.numbers], (self.rows, *shape)
            if self.numbers == "int8":
                files[f"{name}.scale.bin"] = np.dtype("<f4"), (self.rows, shape[0])
        return files


class TeacherCache:
    """Rows of a teacher's outputs in a folder.

    Args:
        folder: created if it does not exist.
        layout: shapes and data type of the rows.
        identity: what the outputs depend on (teacher, views, precision), as JSON values by name.

    Raises:
        UserError: the folder holds other files or a cache of another teacher or other views, or the disk is full.
    """

    def __init__(self, folder: Path, layout: Layout, identity: Mapping[str, str]) -> None:
        self.folder, self.layout = folder, layout
        self._claim({"layout": _plain(layout), **identity})
        self._arrays = {
            name: np.memmap(folder / name, kind, "r+", shape=shape)
            for name, (kind, shape) in layout.files.items()
        }
        self._digests = np.memmap(folder / "chunks.bin", np.uint8, "r+", shape=(self._chunks, DIGEST))
        self._checked: dict[int, bytes] = {}

    def missing(self) -> list[range]:
        """The rows of each chunk that is not written, or is damaged (its checksum does not match)."""
        return [rows for chunk, rows in enumerate(self._row_ranges()) if not self._intact(chunk, rows)]

    def write(self, rows: range, target: TeacherOutput) -> None:
        """Store the outputs for one chunk of rows, as returned by `missing`."""
        maps = {"logits": target.logits, **target.features}
        for name in self.layout.maps:
            self._store(name, rows, maps[name].float().cpu().numpy())
        for array in self._arrays.values():
            array.flush()
        chunk = rows.start // CHUNK_ROWS
        self._digests[chunk] = np.frombuffer(self._digest(rows), np.uint8)
        self._digests.flush()

    def read(self, rows: Sequence[int]) -> TeacherOutput:
        """The outputs stored at `rows`, converted to float32 on the CPU (int8 is multiplied by its scale).

        Raises:
            UserError: a chunk is damaged: its checksum, compared whenever it is new to this process, does not match.
        """
        for chunk in {row // CHUNK_ROWS for row in rows}:
            self._require_intact(chunk)
        maps = {name: torch.from_numpy(self._load(name, list(rows))) for name in self.layout.maps}
        return TeacherOutput(maps.pop("logits"), maps)

    @property
    def size(self) -> int:
        """Size of all arrays in bytes."""
        return sum(array.nbytes for array in self._arrays.values())

    @property
    def _chunks(self) -> int:
        return -(-self.layout.rows // CHUNK_ROWS)

    def _row_ranges(self) -> Iterator[range]:
        for start in range(0, self.layout.rows, CHUNK_ROWS):
            yield range(start, min(start + CHUNK_ROWS, self.layout.rows))

    def _claim(self, wanted: Mapping[str, object]) -> None:
        """Reserve the files and then write `cache.json`, or check that an existing one has the same content."""
        path = self.folder / "cache.json"
        if path.exists():
            self._check_same(path, wanted)
            return
        if (
            self.folder.exists()
            and any(self.folder.glob("*.bin"))
            and not (self.folder / ".filling").exists()
        ):
            raise UserError(f"{self.folder}: holds other files; {REMEDY}")
        sizes = {
            name: kind.itemsize * int(np.prod(shape)) for name, (kind, shape) in self.layout.files.items()
        }
        sizes["chunks.bin"] = self._chunks * DIGEST
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / ".filling").touch()
            for name, size in sizes.items():
                _reserve(self.folder / name, size)
        except OSError as error:
            for name in (*sizes, ".filling"):
                (self.folder / name).unlink(missing_ok=True)
            if error.errno not in DISK_FULL:
                raise UserError(
                    f"{self.folder}: cannot be written ({error.strerror}); give another --distill.cache"
                ) from error
            raise UserError(
                f"{self.folder}: the teacher's outputs need {sum(sizes.values()) / 1e9:.2f} GB, but the disk is full;"
                " free some space, or lower --distill.views or set --distill.cache-dtype int8"
            ) from error
        write_json(path, wanted)
        (self.folder / ".filling").unlink(missing_ok=True)

    def _check_same(self, path: Path, wanted: Mapping[str, object]) -> None:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{path}: cannot be read ({error}); {REMEDY}") from error
        if not isinstance(found, dict):
            raise UserError(f"{path}: describes no cache; {REMEDY}")
        different = [name for name in wanted if found.get(name) != wanted[name]]
        if different:
            raise UserError(f"{self.folder}: is a cache of another {' and '.join(different)}; {REMEDY}")
        for name, (kind, shape) in self.layout.files.items():
            file = self.folder / name
            if not file.is_file() or file.stat().st_size != kind.itemsize * int(np.prod(shape)):
                raise UserError(f"{file}: is missing or truncated; {REMEDY}")

    def _intact(self, chunk: int, rows: range) -> bool:
        stored = self._digests[chunk].tobytes()
        intact = any(stored) and stored == self._digest(rows)
        if intact:
            self._checked[chunk] = stored
        return intact

    def _require_intact(self, chunk: int) -> None:
        if self._checked.get(chunk) == self._digests[chunk].tobytes():
            return
        start = chunk * CHUNK_ROWS
        if not self._intact(chunk, range(start, min(start + CHUNK_ROWS, self.layout.rows))):
            raise UserError(f"{self.folder}: was changed or damaged while it was used; {REMEDY}")

    def _digest(self, rows: range) -> bytes:
        sha256 = hashlib.sha256()
        for array in self._arrays.values():
            sha256.update(array[rows.start : rows.stop].tobytes())
        return sha256.digest()

    def _store(self, name: str, rows: range, maps: np.ndarray) -> None:
        part = slice(rows.start, rows.stop)
        if self.layout.numbers == "int8":
            scale = np.abs(maps).max(axis=(2, 3)) / 127
            self._arrays[f"{name}.scale.bin"][part] = scale
            maps = np.rint(maps / np.where(scale > 0, scale, 1)[..., None, None])
        elif self.layout.numbers == "fp16":
            limit = np.finfo(np.float16).max
            maps = np.clip(maps, -limit, limit)
        self._arrays[f"{name}.bin"][part] = maps

    def _load(self, name: str, rows: list[int]) -> np.ndarray:
        maps = self._arrays[f"{name}.bin"][rows].astype(np.float32)
        if self.layout.numbers == "int8":
            maps *= self._arrays[f"{name}.scale.bin"][rows][..., None, None]
        return maps


@contextmanager
def filling_alone(folder: Path, wait: Callable[[], None]) -> Iterator[None]:
    """Let only one run create and fill the cache in a folder within the block; others wait for it.

    Args:
        folder: of the cache.
        wait: called once if another run is at it.
    """
    with named_write_errors(folder, folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        if not acquire(descriptor):
            wait()
            acquire(descriptor, math.inf)
        yield
    finally:
        os.close(descriptor)


def _reserve(path: Path, size: int) -> None:
    """Write a file of `size` zeros with all blocks allocated: a sparse one would crash the process on a full disk."""
    with open(path, "wb") as file:
        file.truncate(size)
        if hasattr(os, "posix_fallocate") and size:
            os.posix_fallocate(file.fileno(), 0, size)
        os.fsync(file.fileno())


def _plain(layout: Layout) -> dict[str, object]:
    return {
        "rows": layout.rows,
        "maps": {k: list(v) for k, v in layout.maps.items()},
        "numbers": layout.numbers,
    }
