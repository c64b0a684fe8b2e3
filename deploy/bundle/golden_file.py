"""The golden example of a bundle, read without trusting it: sizes are checked before anything is unpacked."""

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.manifest import GOLDEN, Manifest
from deploy.errors import UserError

MOST_IMAGES = 64
MOST_MAPS = 4096
"""Largest number of maps in the logits."""
MOST_HEADER = 1000
"""Bytes of an array's header: its type and shape."""
MOST_BYTES = 1 << 30
"""Largest size of one unpacked array."""


def read_golden(folder: str | Path, manifest: Manifest | None = None) -> dict[str, np.ndarray]:
    """Read the golden example of a bundle.

    Args:
        folder: the bundle.
        manifest: its manifest, if it has been read.

    Returns:
        The fixed `inputs` of the network, N images, and the `labels` and `logits` that it returned for them at export;
        see `deploy.backends.engine.Engine.run`. They have the types and shapes that the manifest tells, labels below
        the number of classes, and finite logits.

    Raises:
        UserError: the file is missing or damaged, or does not fit the manifest.
    """
    path = Path(folder) / GOLDEN
    manifest = manifest or read_manifest(folder)
    if not path.is_file():
        raise UserError(f"{path}: is missing, so there is nothing to compare with; export the bundle again")
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            golden = {
                name: _read(archive, f"{name}.npy", manifest) for name in ("inputs", "labels", "logits")
            }
        _check(golden, len(manifest.classes))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (
        Exception
    ) as error:  # on damaged files zipfile, zlib and numpy raise a dozen types without a common base
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path}: does not hold inputs, labels and logits ({reason[:200]}); export the bundle again"
        ) from error
    return golden


def _read(archive: zipfile.ZipFile, name: str, manifest: Manifest) -> np.ndarray:
    """One array of the archive; `ValueError` where its header does not fit the manifest or the file's size."""
    entry = archive.getinfo(name)
    with archive.open(entry) as file:
        shape, order, dtype = _header(file)
        _check_shape(name, shape, dtype, manifest)
        size = math.prod(shape) * dtype.itemsize
        if order or size > MOST_BYTES or entry.file_size != file.tell() + size:
            raise ValueError(f"{name} has {entry.file_size} bytes, its header tells {size}")
        content = bytearray(size)
        # One read more than needed: at its end the archive checks its checksum.
        assert isinstance(file, zipfile.ZipExtFile)
        if file.readinto(content) != size or file.read(1):
            raise ValueError(f"{name} is cut off")
    return np.frombuffer(content, dtype).reshape(shape)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether it is in Fortran order, and dtype."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array of a version that this package does not write")
    return np.lib.format.read_array_header_1_0(file, max_header_size=MOST_HEADER)


def _check_shape(name: str, shape: tuple[int, ...], dtype: np.dtype, manifest: Manifest) -> None:
    spec = manifest.input
    size, channels = (spec.height, spec.width), len(spec.channels)
    wanted = {
        "inputs.npy": (spec.dtype, (*size, channels) if spec.layout == "NHWC" else (channels, *size)),
        "labels.npy": ("uint8", size),
        "logits.npy": ("float32", shape[1:]),
    }
    kind, rest = wanted[name]
    fits = shape[1:] == rest and 1 <= shape[0] <= MOST_IMAGES if shape else False
    if name == "logits.npy" and fits:
        fits = (
            len(shape) == 4
            and 1 <= shape[1] <= MOST_MAPS
            and all(1 <= cells <= pixels for cells, pixels in zip(shape[2:], size, strict=True))
        )
    if not fits or dtype != np.dtype(kind):
        raise ValueError(f"{name} is {dtype} {shape}, the manifest tells {kind} N×{'×'.join(map(str, rest))}")


def _check(golden: dict[str, np.ndarray], classes: int) -> None:
    if len({len(array) for array in golden.values()}) != 1:
        raise ValueError("the arrays have different numbers of images")
    if (most := int(golden["labels"].max())) >= classes:
        raise ValueError(f"label {most} is none of the {classes} classes")
    for name in ("inputs", "logits"):
        if golden[name].dtype.kind == "f" and not np.isfinite(golden[name]).all():
            raise ValueError(f"{name} hold values that are not finite")
