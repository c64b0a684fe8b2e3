"""The meaning of stored TIFF numbers: physical values, colors, and what is no data. All readers go through here.

`docs/reading.md` lists every rule. Masks of labels are not images: they keep their stored numbers.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from deploy.errors import UserError
from deploy.files.tiff_header import WHITE_IS_ZERO, TiffHeader

_END_OF_FLOAT32 = 3.4e38
"""No-data values beyond it mean the ends of float32, whose decimal digits are often cut."""


class Values(NamedTuple):
    """An image or a window of one."""

    pixels: np.ndarray
    """H×W×C: uint8 or uint16 as stored, unless there is a scale or an offset; else float32."""
    missing: np.ndarray | None
    """bool H×W×C or H×W×1: values without data; None where nothing in the file marks any. NaN is no data anyway."""

    def known(self) -> np.ndarray:
        """bool H×W: pixels of which no value is missing."""
        if self.missing is None:
            return np.ones(self.pixels.shape[:2], bool)
        known: np.ndarray = np.all(~self.missing, axis=2)
        return known

    def with_nan(self) -> np.ndarray:
        """The pixels, in float32 with NaN where they are missing if the file marks that."""
        if self.missing is None:
            return self.pixels
        pixels = self.pixels.astype(np.float32)
        pixels[np.broadcast_to(self.missing, pixels.shape)] = np.nan
        return pixels


def interpret(
    stored: np.ndarray, mask: np.ndarray | None, header: TiffHeader, channels: list[int], path: Path
) -> Values:
    """Turn stored numbers into an image.

    Args:
        stored: H×W×S of `header.dtype`: the samples `channels`, and then alpha, if the file has one that is not among
            them.
        mask: bool H×W, True where the internal mask says that there is data; None if the file has none.
        header: of the file.
        channels: indices of the samples to take, in this order.
        path: for messages.

    Raises:
        UserError: float32 cannot hold the numbers.
    """
    alpha = stored[..., len(channels)] if stored.shape[2] > len(channels) else None
    stored = stored[..., : len(channels)]
    missing = _no_data(stored, header, channels)
    hidden = [~known for known in (mask, None if alpha is None else alpha > 0) if known is not None]
    for one in hidden:
        missing = one[..., None] if missing is None else missing | one[..., None]
    return Values(_pixels(stored, header, channels, missing, path), missing)


def dtype_of(header: TiffHeader) -> np.dtype:
    """dtype of the pixels that `interpret` returns."""
    keeps = header.palette is not None or (header.dtype in (np.uint8, np.uint16) and not header.scaled)
    return (
        np.dtype(np.uint8) if header.palette is not None else header.dtype if keeps else np.dtype(np.float32)
    )


def _no_data(stored: np.ndarray, header: TiffHeader, channels: list[int]) -> np.ndarray | None:
    missing: np.ndarray | None = None
    if header.nodata is not None:
        missing = _equals(stored, header.nodata)
        if header.dtype == np.uint8:  # 0 is also a color: only where all bands have it
            missing = np.all(missing, axis=2, keepdims=True)
    if header.metadata.nodata is not None:
        each = [_equals(stored[..., i], header.metadata.nodata[one]) for i, one in enumerate(channels)]
        whole: np.ndarray = np.all(np.stack(each, axis=2), axis=2, keepdims=True)
        missing = whole if missing is None else missing | whole
    return missing


def _equals(stored: np.ndarray, value: float) -> np.ndarray:
    if stored.dtype.kind != "f":
        return stored == value
    if np.isnan(value):
        return np.isnan(stored)
    if stored.dtype == np.float32 and abs(value) > _END_OF_FLOAT32:
        return stored < -_END_OF_FLOAT32 if value < 0 else stored > _END_OF_FLOAT32
    return stored == stored.dtype.type(value)


def _pixels(
    stored: np.ndarray, header: TiffHeader, channels: list[int], missing: np.ndarray | None, path: Path
) -> np.ndarray:
    if header.palette is not None:
        return header.palette[stored[..., 0]]
    if header.photometric == WHITE_IS_ZERO and header.dtype.kind == "u":
        stored = (2**header.bits - 1 - stored.astype(np.int64)).astype(header.dtype)
    if header.bits < 8:
        stored = stored * np.uint8(255 // (2**header.bits - 1))
    if header.scaled:
        scales, offsets = (
            np.array(one)[channels] for one in (header.metadata.scales, header.metadata.offsets)
        )
        return (stored * scales + offsets).astype(np.float32)
    if stored.dtype in (np.uint8, np.uint16):
        return stored
    return _as_float32(stored, missing, path)


def _as_float32(stored: np.ndarray, missing: np.ndarray | None, path: Path) -> np.ndarray:
    with np.errstate(over="ignore"):
        real = stored.astype(np.float32)
    if stored.dtype.itemsize < 4 or stored.dtype == np.float32:
        return real
    lost = (
        real.astype(np.float64) != stored
        if stored.dtype.kind in "iu"
        else np.isinf(real) & np.isfinite(stored)
    )
    if missing is not None:
        lost &= ~missing
    if lost.any():
        example = stored[lost][0]
        raise UserError(
            f"{path}: float32 cannot hold its {stored.dtype} value {example}; if it means no data, say so "
            f"(gdal_edit.py -a_nodata {example}), else store the numbers as float32 or smaller integers"
        )
    return real
