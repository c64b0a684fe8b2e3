"""Read and write `.npy` files: checked by their header before anything is allocated, and never with pickles.

An array of three axes does not say which one is the channels. The shorter one of the first and the last is taken,
unless the reader knows their number or the image's size. Where that rule would mistake an image of our own,
`save_image` writes it with a data type that says so: one element a pixel, with the channels in a field of that name.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from deploy.errors import UserError
from deploy.files.atomic import atomic_write

_FIELD = "channels"
_MAGIC = b"\x93NUMPY"


def load_image(path: Path, channels: int | None = None, size: tuple[int, ...] | None = None) -> np.ndarray:
    """Read an image H×W×C of any numbers; see `channels_last` for the arguments.

    Raises:
        UserError: as `load_array` and `channels_last`.
    """
    array = _load(path)
    return array[_FIELD] if array.dtype.names else channels_last(array, path, channels, size)


def load_array(path: Path) -> np.ndarray:
    """Read an array of numbers, complex ones included, or of bool.

    Raises:
        UserError: the file cannot be read, is damaged or holds something else; the message names it.
    """
    array = _load(path)
    return array[_FIELD] if array.dtype.names else array


def read_shape(path: Path) -> tuple[int, ...]:
    """The axes of an array by its header; where channels lie in a field, without them.

    Raises:
        UserError: as `load_array`.
    """
    with _opened(path) as file:
        return _check_header(file, path)


def _load(path: Path) -> np.ndarray:
    with _opened(path) as file:
        _check_header(file, path)
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file; what goes wrong with it becomes one line."""
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (UserError, MemoryError):
        raise
    except Exception as error:  # headers are Python text: a flipped bit leads to errors of every type
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: corrupt, or not an array ({reason})") from error


def save_image(path: Path, image: np.ndarray) -> None:
    """Write an image H×W×C such that `load_image` gives it back, atomically."""
    height, width, channels = image.shape
    if _first_is_channels(image.shape):
        named = np.dtype([(_FIELD, image.dtype, (channels,))])
        image = np.ascontiguousarray(image).view(named).reshape(height, width)
    with atomic_write(path) as file:
        np.save(file, image)


def channels_last(
    array: np.ndarray, path: Path, channels: int | None = None, size: tuple[int, ...] | None = None
) -> np.ndarray:
    """Bring an array H×W, H×W×C or C×H×W to H×W×C.

    Args:
        array: of a file.
        path: for messages.
        channels: number of channels, if it is known.
        size: height and width, if they are known, such as those of the mask. Of the orders that fit what is known,
            H×W×C comes first. Without either, the rule above decides.

    Raises:
        UserError: the array has other axes.
    """
    if array.ndim == 2:
        return array[..., None]
    if array.ndim != 3:
        raise UserError(f"{path}: holds an array of shape {array.shape}; an image is H×W, H×W×C or C×H×W")
    first, last = array.shape[0], array.shape[2]
    known = channels is not None or size is not None
    last_fits = known and channels in (None, last) and size in (None, array.shape[:2])
    first_fits = known and channels in (None, first) and size in (None, array.shape[1:])
    if not last_fits and (first_fits or _first_is_channels(array.shape)):
        return np.ascontiguousarray(array.transpose(1, 2, 0))
    return array


def _first_is_channels(shape: tuple[int, ...]) -> bool:
    return shape[0] < shape[2]


def _check_header(file: BinaryIO, path: Path) -> tuple[int, ...]:
    """Check that the file holds an array of numbers, all of which are there, and return its axes.

    Raises:
        UserError: it does not.
        Exception: of any type, where the header is damaged.
    """
    start = file.read(len(_MAGIC))
    if start[:4] == b"PK\3\4":
        raise UserError(f"{path}: is a .npz archive; save its array alone, with numpy.save")
    file.seek(0)
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(file)
    named = dtype.names == (_FIELD,)
    if (dtype[_FIELD].base if named else dtype).kind not in "fiubc":
        raise UserError(f"{path}: holds {dtype}, not numbers; save it as uint8, uint16 or float32")
    if any(isinstance(side, bool) or side < 0 for side in shape):
        raise UserError(f"{path}: corrupt, or not an array (its shape is {shape})")
    needed, place = math.prod(shape) * dtype.itemsize, file.tell()
    found = file.seek(0, 2) - place
    if needed == 0:
        raise UserError(
            f"{path}: holds an array of shape {shape}, which is empty; remove it or write it again"
        )
    if found < needed:
        raise UserError(
            f"{path}: corrupt, or not an array ({found:,} bytes of data where {shape} needs {needed:,})"
        )
    return shape
