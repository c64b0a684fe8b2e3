"""Decode image files with Pillow without changing a pixel, or say in one line why that is not possible."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from deploy.errors import UserError

MAX_PIXELS = 2**30
"""Larger images are refused."""
_LARGE = 2**26
_MAX_PIXELS_PER_BYTE = 2000
"""No PNG, BMP or JPEG holds more. A damaged header may claim to: beyond `_LARGE` pixels, too much for a device."""

# File type by its first bytes; the suffix is ignored. Only these four of Pillow's many decoders ever read a file.
_FORMATS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "TIFF"),
}
_BITS, _ORIENTATION, _SAMPLES, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 258, 274, 277, 338, 339
_PARTS = ((273, 279), (324, 325))
"""TIFF tags. `_PARTS` are the tags of offsets and lengths, of strips and of tiles."""
_UNSIGNED, _SIGNED = 1, 2
_PREMULTIPLIED = 1
_TURN_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""What undoes Pillow's turning of a TIFF, by the orientation that the file states."""
_lock = threading.Lock()


def decode(path: Path) -> tuple[Image.Image, int]:
    """Decode a PNG, JPEG, BMP or TIFF file; of several images the first.

    Returns:
        The image, not turned by its EXIF orientation, and the number of bits of a stored channel.

    Raises:
        UserError: the file cannot be read, is damaged or truncated, or Pillow would change its pixels: it cuts colors
            of 16 bits to 8 and drops bands of a TIFF. The message names the file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    kind = next((kind for magic, kind in _FORMATS.items() if data.startswith(magic)), None)
    if kind is None:
        raise UserError(f"{path}: corrupt image, its {len(data)} bytes are not a PNG, JPEG, BMP or TIFF")
    try:
        image = _open(data, kind)
        bits = _stored_bits(image, data)
        problem = _problem(image, bits, len(data))
        if problem is None:
            image = _load(image, data)
    except Exception as error:  # damaged bytes lead a decoder into errors of every type
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        hint = "; if it is a TIFF that Pillow cannot read, save its bands as .npy" if kind == "TIFF" else ""
        raise UserError(
            f"{path}: corrupt image, its {len(data)} bytes do not decode ({reason}){hint}"
        ) from error
    if problem is not None:
        raise UserError(f"{path}: {problem}")
    return image, bits


def _open(data: bytes, kind: str) -> Image.Image:
    """Read the header."""
    with _quiet():
        return Image.open(BytesIO(data), formats=(kind,))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Pillow's warnings about odd metadata and lift its limit on the size, which `MAX_PIXELS` replaces.

    These settings belong to the process, so one thread at a time; of a PNG, JPEG or BMP only the header is read here.
    """
    handler = logging.NullHandler()  # without any handler Python prints log messages
    logger = logging.getLogger("PIL")
    with _lock, warnings.catch_warnings():
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        warnings.simplefilter("ignore")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            Image.MAX_IMAGE_PIXELS = limit


def _stored_bits(image: Image.Image, data: bytes) -> int:
    if isinstance(image, TiffImageFile):
        return max(image.tag_v2.get(_BITS, (1,)))
    return data[24] if image.format == "PNG" else 8


def _problem(image: Image.Image, bits: int, length: int) -> str | None:
    """Why the pixels would be wrong or too many, judged by the header alone; None when they would not."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        return f"{width}×{height} pixels are more than {MAX_PIXELS:,}; cut the image into parts"
    if width * height > max(_LARGE, _MAX_PIXELS_PER_BYTE * length):
        return f"corrupt image, its {length} bytes cannot hold {width}×{height} pixels"
    bands = len(image.getbands())
    if bands > 1 and bits > 8:
        return f"Pillow would cut its channels of {bits} bits to 8; save them as .npy"
    if not isinstance(image, TiffImageFile):
        return None
    if image.tag_v2.get(_SAMPLES, 1) > bands:
        return f"Pillow reads {bands} of its {image.tag_v2[_SAMPLES]} bands; save them as .npy"
    if _PREMULTIPLIED in image.tag_v2.get(_EXTRA_SAMPLES, ()):
        return "its colors are multiplied by its alpha channel; save them as .npy"
    if image.mode == "L" and _SIGNED in image.tag_v2.get(_SAMPLE_FORMAT, ()):
        return "Pillow takes its signed bytes for unsigned ones; save them as .npy"
    if image.mode == "LAB":
        return "its colors are CIELAB; save them as RGB"
    return None


def _load(image: Image.Image, data: bytes) -> Image.Image:
    """Decode the pixels as stored. Raises an error of any type when some are missing."""
    if isinstance(image, TiffImageFile):
        return _load_tiff(image, len(data))
    if image.format == "PNG":  # Pillow decodes a truncated file and does not compare the checksums
        _open(data, "PNG").verify()
    elif image.format == "JPEG" and _is_cut_jpeg(data):
        raise ValueError("it stops before its end marker")
    image.load()
    return image


def _load_tiff(image: TiffImageFile, length: int) -> Image.Image:
    for offsets, lengths in _PARTS:
        ends = np.add(image.tag_v2.get(offsets, 0), image.tag_v2.get(lengths, 0))
        if ends.max() > length:  # libtiff would print a message of its own
            raise ValueError("parts of the image lie beyond the end")
    unsigned = image.tag_v2.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED
    with _quiet():  # Pillow reads EXIF and checks the size only now
        turn_back = _TURN_BACK.get(image.getexif().get(_ORIENTATION, 1))
        image.load()
    if image.mode == "I" and unsigned and np.asarray(image).min() < 0:
        raise ValueError("its unsigned values do not fit 31 bits")
    # Pillow turns only TIFFs by their orientation. Masks have none, so images must stay as stored, too.
    return image if turn_back is None else image.transpose(turn_back)


def _is_cut_jpeg(data: bytes) -> bool:
    """Whether a JPEG stops before its end marker; decoders may fill in the missing part silently."""
    position, scan = 2, b"\xda"
    while data[position + 1 : position + 2] not in (scan, b""):  # from segment to segment
        position += 2 + int.from_bytes(data[position + 2 : position + 4])
    return data.find(b"\xff\xd9", position) < 0
