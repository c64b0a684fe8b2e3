"""Image files in formats that Pillow does not write."""

import struct
import zlib

import numpy as np


def make_tiff(values: np.ndarray, order: str, sample_format: int, extra: int = 0) -> bytes:
    """An uncompressed TIFF H×W or H×W×C in a format that Pillow does not write; C above 1 is RGB and more."""
    height, width, channels = (*values.shape, 1)[:3]
    bits = 8 * values.itemsize
    entries = {
        256: width,
        257: height,
        258: bits,
        259: 1,
        262: 2 if channels > 1 else 1,
        273: 0,
        277: channels,
    }
    entries |= {278: height, 279: values.nbytes, 339: sample_format}
    if channels > 3:
        entries[338] = extra
    entries[273] = 8 + 2 + 12 * len(entries) + 4
    words = [(tag, 4, 1, value) for tag, value in sorted(entries.items())]
    head = np.array([42], f"{order}u2").tobytes() + np.array([8], f"{order}u4").tobytes()
    table = np.array(
        words, [("tag", f"{order}u2"), ("type", f"{order}u2"), ("n", f"{order}u4"), ("v", f"{order}u4")]
    )
    mark = b"II" if order == "<" else b"MM"
    count = np.array([len(words)], f"{order}u2").tobytes()
    return mark + head + count + table.tobytes() + bytes(4) + values.tobytes()


def make_png_header(width: int, height: int, png: bytes) -> bytes:
    """A PNG whose header claims another size, one bit a pixel, with a right checksum."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return png[:12] + head + struct.pack(">I", zlib.crc32(head)) + png[33:]


def make_png16(values: np.ndarray, color_type: int) -> bytes:
    """A PNG of 16 bits and several channels, which Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = values.shape[:2]
    rows = np.pad((values.astype(">u2") * 257).reshape(height, -1).view(np.uint8), ((0, 0), (1, 0)))
    head = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)
