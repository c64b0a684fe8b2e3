"""Read and write image files as arrays, channels last, RGB."""

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from deploy.errors import UserError
from deploy.files.atomic import atomic_write
from deploy.files.decoding import as_colors, check_channels, decode, is_picture, palette_of, size_of
from deploy.files.npy import load_array, load_image, read_shape
from deploy.files.tiff import read_labels, read_values
from deploy.files.tiff_header import read_header
from deploy.files.tiff_pages import MAGIC
from deploy.files.tiff_values import Values

TIFF_SUFFIXES = (".tif", ".tiff")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", *TIFF_SUFFIXES, ".npy")
_COMPRESSION = 1
"""zlib level: the fastest; PNGs of labels are small anyway."""


def list_images(folder: str | Path) -> list[Path]:
    """List the image files directly inside `folder`, sorted by name, without hidden files.

    Raises:
        UserError: the folder is missing or has no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    found = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    if not found:
        raise UserError(f"{folder}: holds no image; looked for {', '.join(IMAGE_SUFFIXES)}")
    return found


def read_image(
    path: str | Path, channels: Sequence[str] | None = None, size: tuple[int, ...] | None = None
) -> np.ndarray:
    """Read an image file in the units of the file; everything that reads images calls this.

    Three channels are in RGB order, a gray image is H×W×1, a palette becomes its colors, and gray of less than 8 bits
    is stretched to 0..255. The alpha channel of a PNG or WebP is dropped. Pixels are as stored, not turned by EXIF, so
    that they match their masks. `deploy.files.tiff.read_bands` says what the tags of a TIFF mean. The type of a file is
    known by its first bytes, whatever its suffix.

    Args:
        path: a file with one of `IMAGE_SUFFIXES`. `.npy` holds H×W, H×W×C or C×H×W (`deploy.files.npy.channels_last`).
        channels: names of the channels that the bundle wants: their number is checked before pixels are decoded.
        size: height and width, if they are known; they tell the axes of `.npy` apart.

    Returns:
        H×W×C, uint8, uint16 or float32, with NaN where there is no data.

    Raises:
        UserError: the file is missing, corrupt, too large or of an unsupported type, or has other channels; the message
            names it.
    """
    return read_pixels(Path(path), channels, size).with_nan()


def read_pixels(
    path: Path, channels: Sequence[str] | None = None, size: tuple[int, ...] | None = None
) -> Values:
    """`read_image` with the pixels as they are, and where they are missing beside them.

    Raises:
        UserError: as `read_image`; or memory is too small.
    """
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise UserError(f"{path}: not an image; supported are {', '.join(IMAGE_SUFFIXES)}")
    _check_exists(path)
    try:
        return _read(path, channels, size)
    except MemoryError as error:
        raise UserError(f"{path}: too little memory to read it; cut the image into parts") from error


def _read(path: Path, channels: Sequence[str] | None, size: tuple[int, ...] | None) -> Values:
    if _is_npy(path):
        image = load_image(path, None if channels is None else len(channels), size)
        check_channels(path, image.shape[2], channels)
    elif _is_tiff(path):
        return read_values(path, channels)
    else:
        image = np.array(as_colors(decode(path, channels)[0]))
        image = image.astype(image.dtype.newbyteorder("="), copy=False)
        image = image if image.ndim == 3 else image[..., None]
    return Values(_supported(image, path), None)


def count_pixels(path: Path) -> int:
    """At least the number of an image's pixels, by the header of its file; 0 of what no reader takes for an image.

    Raises:
        UserError: the file is missing or damaged; the message names it.
    """
    _check_exists(path)
    if _is_npy(path):
        shape = read_shape(path)
        return math.prod(shape) // (min(shape[0], shape[2]) if len(shape) == 3 else 1)
    if _is_tiff(path):
        header = read_header(path)
        return header.height * header.width
    return math.prod(size_of(path) or (0,))


def read_mask(path: str | Path) -> np.ndarray:
    """Read a label image as stored: without an alpha channel, and not turned by EXIF.

    Args:
        path: an image file, or `.npy` of integers H×W or H×W×1, or of uint8 H×W×3.

    Returns:
        Integers H×W: the indices of a palette image, the stored numbers of a gray image of any depth (one bit: 0 and
        1); or RGB uint8 H×W×3 where the file holds colors.

    Raises:
        UserError: the file is missing, corrupt or of another kind; or it is a TIFF that leaves open what its numbers
            mean (`deploy.files.tiff.read_labels`). The message names the file.
    """
    path = Path(path)
    _check_exists(path)
    mask = load_array(path) if _is_npy(path) else read_labels(path) if _is_tiff(path) else _read_ids(path)
    if mask.dtype == bool:
        mask = mask.astype(np.uint8)
    if mask.ndim == 3 and mask.shape[2] == 1:
        mask = mask[..., 0]
    is_ids = mask.ndim == 2 and mask.dtype.kind in "iu"
    is_colors = mask.ndim == 3 and mask.shape[2] == 3 and mask.dtype == np.uint8
    if not (is_ids or is_colors) or mask.size == 0:
        raise UserError(
            f"{path}: a mask is integers H×W or colors H×W×3, but this has shape {mask.shape} of {mask.dtype}"
        )
    return mask


def read_palette(path: str | Path) -> np.ndarray | None:
    """The colors of a palette image, whose numbers `read_mask` returns; only the header is read.

    Returns:
        uint8 K×3, by index; None for other files.

    Raises:
        UserError: the file cannot be read; the message names it.
    """
    path = Path(path)
    _check_exists(path)
    if _is_npy(path):
        return None
    return read_header(path).palette if _is_tiff(path) else palette_of(path)


def write_png(path: str | Path, array: np.ndarray) -> None:
    """Write an array as a PNG, atomically.

    Args:
        path: the file to create or replace.
        array: gray H×W or H×W×1, uint8 or uint16; or RGB H×W×3, uint8.

    Raises:
        ValueError: the array has another shape or dtype.
        UserError: as `deploy.files.atomic.atomic_write` does.
    """
    array = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    is_gray = array.ndim == 2 and array.dtype in (np.uint8, np.uint16)
    is_color = array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8
    if not (is_gray or is_color):
        raise ValueError(
            f"a PNG holds gray of uint8 or uint16, or RGB of uint8; not {array.dtype} of shape {array.shape}"
        )
    encoded = BytesIO()
    Image.fromarray(array).save(encoded, format="PNG", compress_level=_COMPRESSION)
    with atomic_write(path) as file:
        file.write(encoded.getbuffer())


def _check_exists(path: Path) -> None:
    try:
        exists = path.is_file()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if not exists:
        raise UserError(f"{path}: no such file")


def _is_npy(path: Path) -> bool:
    return path.suffix.lower() == ".npy"


def _is_tiff(path: Path) -> bool:
    """Whether a file is a TIFF, or is called one and is no picture."""
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return start[:4] in MAGIC or (path.suffix.lower() in TIFF_SUFFIXES and not is_picture(start))


def _supported(image: np.ndarray, path: Path) -> np.ndarray:
    """The image as uint8, uint16 or float32."""
    image = image.astype(image.dtype.newbyteorder("="), copy=False)
    if image.dtype in (np.float64, np.float16):
        with np.errstate(over="ignore"):
            real = image.astype(np.float32)
        if np.isinf(real).any() and (np.isinf(real) & np.isfinite(image)).any():
            raise UserError(f"{path}: holds numbers beyond float32; use NaN where there is no data")
        return real
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        raise UserError(f"{path}: pixels are {image.dtype}; save them as uint8, uint16 or float32")
    return image


def _read_ids(path: Path) -> np.ndarray:
    """Decode a mask to H×W or H×W×C."""
    image, bits = decode(path)
    target = {"PA": "P", "LA": "L", "RGBA": "RGB"}
    ids = np.array(image.convert(target[image.mode]) if image.mode in target else image)
    ids = ids.astype(ids.dtype.newbyteorder("="), copy=False)
    # Pillow scales gray of two and four bits to 0..255.
    return ids // (255 // (2**bits - 1)) if image.mode == "L" and bits in (2, 4) else ids
