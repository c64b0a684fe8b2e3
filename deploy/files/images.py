"""Read and write image files as arrays, channels last, RGB."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from deploy.errors import UserError
from deploy.files.atomic import atomic_write
from deploy.files.decoding import decode

TIFF_SUFFIXES = (".tif", ".tiff")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", *TIFF_SUFFIXES, ".npy")
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


def read_image(path: str | Path) -> np.ndarray:
    """Read an image file in the units of the file.

    Three channels are in RGB order, a gray image is H×W×1, a palette becomes its colors. The alpha channel of a PNG is
    dropped; that of a TIFF is kept. Pixels are as stored, not turned by EXIF, so that they match their masks.
    Several channels of more than 8 bits are read from `.npy` only. Signed and 32-bit integers of a gray TIFF become
    float32, if that holds them exactly.

    Args:
        path: a file with one of `IMAGE_SUFFIXES`. `.npy` holds H×W, H×W×C or C×H×W: of the first and the last axis the
            shorter one is taken as the channels.

    Returns:
        H×W×C, uint8, uint16 or float32.

    Raises:
        UserError: the file is missing, corrupt or of an unsupported type; the message names it.
    """
    path = Path(path)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise UserError(f"{path}: not an image; supported are {', '.join(IMAGE_SUFFIXES)}")
    _check_exists(path)
    image = _channels_last(_load_npy(path), path) if _is_npy(path) else _read_pixels(path)
    if image.dtype in (np.float64, np.float16):
        image = image.astype(np.float32)
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        raise UserError(f"{path}: pixels are {image.dtype}; save them as uint8, uint16 or float32")
    return image


def read_mask(path: str | Path) -> np.ndarray:
    """Read a label image as stored: without an alpha channel, and not turned by EXIF.

    Args:
        path: an image file, or `.npy` of integers H×W or H×W×1, or of uint8 H×W×3.

    Returns:
        Integers H×W: the indices of a palette image, the stored numbers of a gray image of any depth (one bit: 0 and
        1); or RGB uint8 H×W×3 where the file holds colors.

    Raises:
        UserError: the file is missing, corrupt or of another kind; the message names it.
    """
    path = Path(path)
    _check_exists(path)
    mask = _load_npy(path) if _is_npy(path) else _read_ids(path)
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


def _load_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{path}: corrupt, or not an array ({error})") from error


def _channels_last(array: np.ndarray, path: Path) -> np.ndarray:
    if array.ndim == 2:
        return array[..., None]
    if array.ndim != 3 or array.size == 0:
        raise UserError(f"{path}: holds an array of shape {array.shape}; an image is H×W, H×W×C or C×H×W")
    return np.ascontiguousarray(array.transpose(1, 2, 0)) if array.shape[0] < array.shape[2] else array


def _read_pixels(path: Path) -> np.ndarray:
    """Decode an image to H×W×C."""
    image, _ = decode(path)
    image.info.pop("transparency", None)  # `convert` would warn about it
    target = dict.fromkeys(("P", "PA", "CMYK", "YCbCr"), "RGB") | {"1": "L"}
    if path.suffix.lower() not in TIFF_SUFFIXES:
        target |= {"RGBA": "RGB", "LA": "L"}
    pixels = _to_array(image.convert(target[image.mode]) if image.mode in target else image)
    if pixels.dtype == np.int32:
        real = pixels.astype(np.float32)
        pixels = real if (real == pixels).all() else pixels
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _read_ids(path: Path) -> np.ndarray:
    """Decode a mask to H×W or H×W×C."""
    image, bits = decode(path)
    target = {"PA": "P", "LA": "L", "RGBA": "RGB"}
    ids = _to_array(image.convert(target[image.mode]) if image.mode in target else image)
    # Pillow scales gray of two and four bits to 0..255.
    return ids // (255 // (2**bits - 1)) if image.mode == "L" and bits in (2, 4) else ids


def _to_array(image: Image.Image) -> np.ndarray:
    """The pixels H×W or H×W×C, writable and in native byte order."""
    array = np.array(image)
    return array.astype(array.dtype.newbyteorder("="), copy=False)
