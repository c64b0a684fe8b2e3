"""Decode pictures with Pillow without changing a pixel, or say in one line why that is not possible."""

import logging
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, features

from deploy.errors import UserError
from deploy.forks import in_library

MAX_PIXELS = 2**28
"""Larger images are refused: predict and cut them as GeoTIFFs, which are read by windows."""
_MAX_BYTES = 2**32
"""Decoded images that take more are refused."""
_LARGE = 2**26
_MAX_BYTES_PER_BYTE = 2000
"""Few files hold more. A damaged header may claim to: beyond `_LARGE` bytes, too much for a device."""

# File type by its first bytes; the suffix is ignored. Only these of Pillow's many decoders ever read a file.
_FORMATS = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"BM": "BMP", b"RIFF": "WEBP"}
_ANIMATED = ("PNG", "WEBP")
_lock = threading.Lock()


def is_picture(start: bytes) -> bool:
    """Whether a file that begins with these bytes is a PNG, JPEG, BMP or WebP."""
    return any(start.startswith(magic) for magic in _FORMATS)


def decode(path: Path, channels: Sequence[str] | None = None) -> tuple[Image.Image, int]:
    """Decode a PNG, JPEG, BMP or WebP file.

    Args:
        path: the file.
        channels: names of the channels that the bundle wants, checked before any pixel is decoded; None: any.

    Returns:
        The image, not turned by its EXIF orientation, and the number of bits of a stored channel.

    Raises:
        UserError: the file cannot be read, is damaged, truncated, animated or too large, has other channels, or Pillow
            would change its pixels: it cuts colors of 16 bits to 8. The message names the file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    kind = next((kind for magic, kind in _FORMATS.items() if data.startswith(magic)), None)
    if kind is None:
        raise UserError(
            f"{path}: corrupt image, its {len(data)} bytes are not a PNG, JPEG, BMP, WebP or TIFF"
        )
    if kind == "WEBP" and not features.check("webp"):
        raise UserError(
            f"{path}: Pillow lacks the codec WebP: pip install --upgrade pillow, or save it as PNG"
        )
    try:
        image = _open(data, kind)
        bits = data[24] if image.format == "PNG" else 8
        problem = _problem(image, bits)
        if problem is None:
            stored = image.width * image.height * bits * len(image.getbands()) // 8
            check_size(path, (image.height, image.width), stored, len(data))
            check_channels(path, bands_of(image.mode), channels)
            _check_whole(image, data)
            image.load()
    except (UserError, MemoryError):
        raise
    except Exception as error:  # damaged bytes lead a decoder into errors of every type
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: corrupt image, its {len(data)} bytes do not decode ({reason})") from error
    if problem is not None:
        raise UserError(f"{path}: {problem}")
    return image, bits


def palette_of(path: Path) -> np.ndarray | None:
    """The colors of a palette image of a type that `decode` reads, uint8 K×3; None for others, and damaged ones."""
    try:
        with quiet(), Image.open(path, formats=tuple(_FORMATS.values())) as image:
            flat = image.getpalette("RGB") if image.mode in ("P", "PA") else None
    except Exception:  # as above; `decode` says what is wrong
        return None
    return None if flat is None else np.array(flat, np.uint8).reshape(-1, 3)


def size_of(path: Path) -> tuple[int, int] | None:
    """Height and width of an image of a type that `decode` reads, by its header; None of others, and damaged ones."""
    try:
        with quiet(), Image.open(path, formats=tuple(_FORMATS.values())) as image:
            return image.height, image.width
    except Exception:  # as above; `decode` says what is wrong
        return None


def as_colors(image: Image.Image) -> Image.Image:
    """A decoded image as gray or RGB: colors of a palette, no alpha, no CMYK, and one bit as 0 and 255."""
    image.info.pop("transparency", None)  # `convert` would warn about it
    mode = "L" if bands_of(image.mode) == 1 else "RGB"
    return image if image.mode == mode or image.mode.startswith(("I", "F")) else image.convert(mode)


def bands_of(mode: str) -> int:
    """Channels of an image that Pillow opens in this mode, as `as_colors` returns it."""
    return 3 if mode in ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr") else 1


def check_size(path: Path, size: tuple[int, int], stored: int, length: int) -> None:
    """Check from the header that an image may be decoded as a whole.

    Args:
        path: for messages.
        size: height and width.
        stored: bytes of its pixels, not compressed.
        length: bytes of the file.

    Raises:
        UserError: it is too large, or the file too short.
    """
    height, width = size
    if stored > max(_LARGE, _MAX_BYTES_PER_BYTE * length):
        raise UserError(f"{path}: corrupt image, its {length} bytes cannot hold {width}×{height} pixels")
    if width * height > MAX_PIXELS or stored > _MAX_BYTES:
        limit = f"{MAX_PIXELS:,}" if width * height > MAX_PIXELS else f"{_MAX_BYTES:,} bytes hold"
        raise UserError(
            f"{path}: {width}×{height} pixels are more than {limit}; cut the image into parts, or give it as a GeoTIFF "
            "to edgedistill tiles or predict-raster"
        )


def check_channels(path: Path, found: int, wanted: Sequence[str] | None) -> None:
    """Check the number of channels of an image against those that the bundle wants, if they are known.

    Raises:
        UserError: it has another number.
    """
    if wanted is not None and found != len(wanted):
        raise UserError(
            f"{path}: image has {found} channel{'s' * (found != 1)}, the bundle wants {len(wanted)} "
            f"({', '.join(wanted)})"
        )


def check_order(path: Path, names: Sequence[str], wanted: Sequence[str] | None) -> None:
    """Check that bands with the names of the bundle's channels are in their order.

    Args:
        path: for messages.
        names: descriptions of the bands, "" where one has none.
        wanted: names of the channels; None: any.

    Raises:
        UserError: they have the same names in another order.
    """
    if wanted is None or set(names) != set(wanted) or len(names) != len(wanted):
        return  # other descriptions are free text
    order = [names.index(one) + 1 for one in wanted]
    if order != sorted(order):
        raise UserError(
            f"{path}: its bands are {', '.join(names)} in this order, wanted are {', '.join(wanted)}; choose "
            f"them (--bands {','.join(map(str, order))}) or write them so (gdal_translate -b "
            f"{' -b '.join(map(str, order))})"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow's warnings about odd metadata and lift its limit on the size, which `MAX_PIXELS` replaces.

    These settings belong to the process, so one thread at a time; of a PNG, JPEG or BMP only the header is read here.
    """
    handler = logging.NullHandler()  # without any handler Python prints log messages
    logger = logging.getLogger("PIL")
    with in_library, _lock, warnings.catch_warnings():
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        warnings.simplefilter("ignore")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            Image.MAX_IMAGE_PIXELS = limit


def _open(data: bytes, kind: str) -> Image.Image:
    """Read the header."""
    with quiet():
        return Image.open(BytesIO(data), formats=(kind,))


def _problem(image: Image.Image, bits: int) -> str | None:
    """Why the pixels would be wrong, judged by the header alone; None when they would not."""
    if len(image.getbands()) > 1 and bits > 8:
        return f"Pillow would cut its channels of {bits} bits to 8; save them as .npy"
    frames = getattr(image, "n_frames", 1) if image.format in _ANIMATED else 1
    return f"holds {frames} frames; save each as an image of its own" if frames > 1 else None


def _check_whole(image: Image.Image, data: bytes) -> None:
    """Raise an error of any type where pixels are missing, which Pillow would fill in silently."""
    if image.format == "PNG":  # Pillow decodes a truncated file and does not compare the checksums
        _open(data, "PNG").verify()
    elif image.format == "JPEG" and _is_cut_jpeg(data):
        raise ValueError("it stops before its end marker")


def _is_cut_jpeg(data: bytes) -> bool:
    """Whether a JPEG stops before its end marker; decoders may fill in the missing part silently."""
    position, scan = 2, b"\xda"
    while data[position + 1 : position + 2] not in (scan, b""):  # from segment to segment
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return data.find(b"\xff\xd9", position) < 0
