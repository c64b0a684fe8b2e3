"""Read the tags of all pages of a TIFF or BigTIFF file.

Own code, as libraries skip a tag that they cannot read, and a lost no-data value would go unnoticed.
"""

import struct
from typing import BinaryIO

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""The first bytes of TIFF and BigTIFF in both byte orders."""
_BIG = (b"+\0", b"\0+")
_TAGS = {
    254: "subfile", 255: "old_subfile", 256: "width", 257: "height", 258: "bits", 259: "compression",
    262: "photometric", 273: "strip_offsets", 277: "samples", 278: "rows_per_strip", 279: "strip_lengths",
    284: "planar", 317: "predictor", 320: "colors", 322: "tile_width", 323: "tile_height", 324: "tile_offsets",
    325: "tile_lengths", 338: "extra", 339: "format", 32997: "depth", 34735: "geo_keys",
    42112: "metadata", 42113: "nodata",
}  # fmt: skip
_TYPES = {
    1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q",
    18: "Q",
}  # fmt: skip
"""Codes of `struct`; texts are bytes."""
_MOST_PAGES = 10_000

Page = dict[str, tuple[float, ...]]
"""Values of the known tags by name; of texts their bytes."""


def read_pages(file: BinaryIO, length: int) -> list[Page]:
    """The tags of each page of a file of `length` bytes, at least one page.

    Raises:
        ValueError: the file is no TIFF, or damaged.
        struct.error: it ends too soon.
    """
    start = file.read(16)
    if start[:4] not in MAGIC:
        raise ValueError(f"its {length} bytes do not begin as TIFF")
    order, big = ("<" if start[:2] == b"II" else ">"), start[2:4] in _BIG
    place = struct.unpack(f"{order}Q", start[8:16])[0] if big else struct.unpack(f"{order}I", start[4:8])[0]
    pages: list[Page] = []
    seen: set[int] = set()
    while place and place not in seen and len(pages) < _MOST_PAGES:
        seen.add(place)
        page, place = _read_page(file, place, length, order, big)
        pages.append(page)
    if not pages:
        raise ValueError("it holds no image")
    return pages


def number(page: Page, name: str, default: int | None = None) -> int:
    """The first value of a tag.

    Raises:
        ValueError: the tag is missing and there is no default.
    """
    values = page.get(name, () if default is None else (default,))
    if not values:
        raise ValueError(f"it has no {name}")
    return int(values[0])


def text(page: Page, name: str) -> str:
    """The text of a tag; "" where it is missing."""
    data = bytes(int(one) for one in page.get(name, ()))
    return data.split(b"\0")[0].decode("utf-8", "replace")


def _read_page(file: BinaryIO, place: int, length: int, order: str, big: bool) -> tuple[Page, int]:
    """The tags of the page at `place`, and the place of the next page, 0 after the last."""
    word, head, entry = (order + part for part in (("Q", "Q", "HHQ8s") if big else ("I", "H", "HHI4s")))
    file.seek(place)
    (count,) = struct.unpack(head, file.read(struct.calcsize(head)))
    size = struct.calcsize(entry)
    if place + count * size > length:
        raise ValueError("its directory lies beyond the end")
    table = file.read(count * size)
    (after,) = struct.unpack(word, file.read(struct.calcsize(word)))
    page: Page = {}
    for tag, kind, values, inline in struct.iter_unpack(entry, table):
        if tag not in _TAGS:
            continue
        if kind not in _TYPES or values > length:
            raise ValueError(f"tag {tag} has type {kind} and {values} values")
        code = f"{order}{values}{_TYPES[kind]}"
        bytes_ = struct.calcsize(code)
        if bytes_ > len(inline):
            file.seek(struct.unpack(word, inline)[0])
            inline = file.read(bytes_)
        page[_TAGS[tag]] = struct.unpack(code, inline[:bytes_])
    return page, after
