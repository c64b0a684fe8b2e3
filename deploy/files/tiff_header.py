"""What a TIFF file says about its pixels, read before any of them is decoded: the same whichever library decodes them.

After "TIFF Revision 6.0" (Adobe, 1992), BigTIFF, and the tags of GDAL
(https://gdal.org/en/stable/drivers/raster/gtiff.html).
"""

import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from deploy.errors import UserError
from deploy.files.gdal_metadata import GdalMetadata, check_sidecars, parse_metadata, parse_number
from deploy.files.tiff_pages import Page, number, read_pages, text

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
"""Photometric interpretations that are read."""
_OTHER_COLORS = {4: "a transparency mask", 5: "CMYK", 8: "CIELAB", 9: "ICC L*a*b*", 10: "ITU L*a*b*",
                 32803: "a color filter array", 32844: "LogL", 32845: "LogLuv", 34892: "linear raw"}  # fmt: skip
JPEG = 7
_REDUCED, _MASK = 1, 4
"""Bits of the tag `subfile`: a smaller copy, and the mask of another image."""
_OLD_REDUCED = 2
_ASSOCIATED, _UNASSOCIATED = 1, 2
"""Kinds of alpha among the extra samples; colors are multiplied by the first."""
_UNDEFINED = 4
_SEPARATE = 2


@dataclass(frozen=True)
class TiffHeader:
    """The image of a TIFF file."""

    height: int
    width: int
    samples: int
    """Stored numbers of a pixel, alpha included."""
    bits: int
    """Bits of such a number."""
    dtype: np.dtype
    """dtype that holds it: uint8 below 8 bits, uint16 below 16."""
    photometric: int
    separate: bool
    """Each band in a plane of its own, instead of pixel by pixel."""
    compression: int
    predictor: int
    alpha: int | None
    """Index of the alpha band among the samples."""
    premultiplied: bool
    sparse: bool
    """Some parts of the image are left out: they hold the no-data value, or 0."""
    colors: tuple[int, ...]
    """Of a palette: all reds, then greens and blues, 0..65535; else empty."""
    mask_page: int | None
    """Number of the page that holds the internal mask."""
    nodata: float | None
    metadata: GdalMetadata
    """One scale, offset and name for each sample."""

    @cached_property
    def palette(self) -> np.ndarray | None:
        """Colors uint8 K×3 of the indices of a palette image; None for others."""
        if not self.colors:
            return None
        colors = np.array(self.colors).reshape(3, -1).T
        return (colors >> 8 if colors.max() > 255 else colors).astype(np.uint8)  # some writers store 0..255

    @property
    def channels(self) -> list[int]:
        """The samples that are data: all but alpha."""
        return [index for index in range(self.samples) if index != self.alpha]

    @property
    def bands(self) -> int:
        """Channels of the image as it is read: 3 of a palette, without alpha."""
        return 3 if self.colors else len(self.channels)

    @property
    def masked(self) -> bool:
        """Whether something in the file says where data is missing."""
        marks = (self.alpha, self.mask_page, self.nodata, self.metadata.nodata)
        return any(mark is not None for mark in marks)

    @property
    def scaled(self) -> bool:
        """Whether stored numbers become physical values by a scale or an offset."""
        return any(scale != 1 for scale in self.metadata.scales) or any(self.metadata.offsets)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the bands, "" where one has none; three colors of a palette have none."""
        return ("",) * 3 if self.colors else tuple(self.metadata.names[index] for index in self.channels)


def read_header(path: Path) -> TiffHeader:
    """Read the header of a TIFF file.

    Raises:
        UserError: the file cannot be read or is damaged; or it says something whose meaning is not defined here:
            several pages, complex numbers, CMYK and other color models, a no-data value that is no number, or no-data
            values, scales and masks in a file beside it. The message names the file and the remedy.
    """
    check_sidecars(path)
    try:
        length = path.stat().st_size
        with open(path, "rb") as file:
            pages = read_pages(file, length)
        _check(pages[0], path)
        _check_parts(pages[0], length)
        return _describe(pages[0], _find_mask(pages, path), path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (struct.error, ValueError, OverflowError) as error:
        raise UserError(f"{path}: corrupt image, cannot be read as TIFF ({error})") from error


def _find_mask(pages: list[Page], path: Path) -> int | None:
    """The page of the internal mask; other pages must be smaller copies."""
    mask, others = None, [pages[0]]
    for index, page in enumerate(pages[1:], 1):
        kind = number(page, "subfile", 0)
        if kind & _REDUCED or number(page, "old_subfile", 0) == _OLD_REDUCED:
            continue
        if kind & _MASK and _size(page) == _size(pages[0]) and mask is None:
            mask = index
        else:
            others.append(page)
    if len(others) == 1:
        return mask
    listed = ", ".join(f"{height}×{width}" for height, width in sorted({_size(page) for page in others}))
    differ = len({_size(page) for page in others}) > 1
    raise UserError(
        f"{path}: {'its bands differ in size' if differ else f'holds {len(others)} pages'} ({listed}), and pages are "
        "not bands; write one page with all bands (tifffile.imwrite(…, photometric='minisblack', "
        "planarconfig='separate'), or gdal_merge.py -separate), or a file for each page"
    )


def _size(page: Page) -> tuple[int, int]:
    return number(page, "height", 0), number(page, "width", 0)


def _describe(page: Page, mask: int | None, path: Path) -> TiffHeader:
    height, width, samples = (number(page, name) for name in ("height", "width", "samples"))
    (bits,), photometric = page["bits"][:1], number(page, "photometric", BLACK_IS_ZERO)
    dtype = _dtype(int(bits), number(page, "format", 1))
    if dtype is None:
        raise UserError(f"{path}: pixels are numbers of {bits} bits; save them as integers or float32")
    alpha, premultiplied = _find_alpha(page, samples, photometric, path)
    colors = tuple(int(one) for one in page.get("colors", ())) if photometric == PALETTE else ()
    if photometric == PALETTE and (len(colors) != 3 << int(bits) or samples != 1 + (alpha is not None)):
        raise UserError(f"{path}: its palette does not fit its pixels; save it as RGB")
    return TiffHeader(
        height,
        width,
        samples,
        int(bits),
        dtype,
        photometric,
        separate=number(page, "planar", 1) == _SEPARATE and samples > 1,
        compression=number(page, "compression", 1),
        predictor=number(page, "predictor", 1),
        alpha=alpha,
        premultiplied=premultiplied,
        sparse=0 in page.get("strip_lengths", ()) or 0 in page.get("tile_lengths", ()),
        colors=colors,
        mask_page=mask,
        nodata=parse_number(text(page, "nodata"), f"{path}: its no-data value") if "nodata" in page else None,
        metadata=parse_metadata(text(page, "metadata"), samples, path),
    )


def _find_alpha(page: Page, samples: int, photometric: int, path: Path) -> tuple[int | None, bool]:
    """The index of the alpha band, and whether colors are multiplied by it; extra samples come last (page 31)."""
    extra = [int(one) for one in page.get("extra", ())][:samples]
    alphas = [i for i, one in enumerate(extra, samples - len(extra)) if one in (_ASSOCIATED, _UNASSOCIATED)]
    if len(alphas) > 1:
        raise UserError(f"{path}: has {len(alphas)} alpha bands, so its mask is ambiguous; keep one")
    if photometric == RGB and samples == 4 and not extra:
        raise UserError(
            f"{path}: does not say whether its fourth band is alpha or data; say so: gdal_translate -colorinterp_4 "
            "alpha (or undefined)"
        )
    return (alphas[0] if alphas else None), _ASSOCIATED in extra


def _check(page: Page, path: Path) -> None:
    """Fill in the defaults of a page, and refuse what has no meaning here.

    Raises:
        ValueError: the page is damaged.
        UserError: its numbers or colors are of a kind that is not read; the message names the file.
    """
    page.setdefault("samples", (1,))
    page.setdefault("bits", (1,))
    page["format"] = tuple(1 if one == _UNDEFINED else one for one in page.get("format", (1,)))
    height, width, samples = (number(page, name) for name in ("height", "width", "samples"))
    if min(height, width, samples, *page["bits"]) < 1:
        raise ValueError(f"it is {height}×{width} pixels of {samples} samples")
    if number(page, "planar", 1) not in (1, _SEPARATE):
        raise ValueError(f"its planar configuration is {number(page, 'planar')}")
    photometric, depth = number(page, "photometric", BLACK_IS_ZERO), number(page, "depth", 1)
    shape = (height, width, samples)
    problem = None
    if len(set(page["bits"])) > 1 or len(set(page["format"])) > 1:
        problem = "its bands differ in their type of numbers; save them as one type, such as float32"
    elif page["format"][0] not in (1, 2, 3):
        problem = "pixels are complex numbers; save amplitude or intensity as float32"
    elif "photometric" not in page and samples == 1 and page["format"][0] == 1:
        problem = (
            "does not say whether 0 is black or white; say so: gdal_translate -co PHOTOMETRIC=MINISBLACK"
        )
    elif depth > 1:
        problem = f"holds a volume of {depth} slices; save them as the bands of one page"
    elif photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR):
        kind = _OTHER_COLORS.get(photometric, f"colors of the unknown kind {photometric}")
        problem = f"holds {kind} of shape {shape}; save it as RGB or gray"
    elif photometric == YCBCR and number(page, "compression", 1) != JPEG:
        problem = "its colors are YCbCr; save it as RGB"
    if problem is not None:
        raise UserError(f"{path}: {problem}")


def _check_parts(page: Page, length: int) -> None:
    """Check that all strips or tiles are there: libraries fill in what is missing, each in its way.

    Raises:
        ValueError: they are not.
    """
    kind = "tile" if "tile_offsets" in page else "strip"
    starts, sizes = page.get(f"{kind}_offsets", ()), page.get(f"{kind}_lengths", ())
    if any(start + size > length for start, size in zip(starts, sizes, strict=False)):
        raise ValueError("parts of the image lie beyond the end")
    height, width, samples = (number(page, name) for name in ("height", "width", "samples"))
    if kind == "tile":
        across, down = number(page, "tile_width"), number(page, "tile_height")
    else:
        across, down = width, min(height, number(page, "rows_per_strip", height))
    if min(across, down) < 1:
        raise ValueError(f"its parts are {down}×{across} pixels")
    planes = samples if number(page, "planar", 1) == _SEPARATE else 1
    wanted = -(-height // down) * -(-width // across) * planes
    if min(len(starts), len(sizes) or wanted) < wanted:
        raise ValueError(f"it has {len(starts)} of its {wanted} parts")
    stored = height * (-(-width * (samples // planes) * int(page["bits"][0]) // 8)) * planes
    if (
        kind == "strip"
        and number(page, "compression", 1) == 1
        and sizes
        and 0 not in sizes
        and sum(sizes) < stored
    ):
        raise ValueError(f"its parts have {sum(sizes):,.0f} of {stored:,} bytes")


def _dtype(bits: int, kind: int) -> np.dtype | None:
    """The dtype that holds numbers of so many bits; `kind` is 1 unsigned, 2 signed, 3 floating point."""
    if kind == 3:
        return np.dtype(f"f{bits // 8}") if bits in (16, 32, 64) else None
    if kind == 2:
        return np.dtype(f"i{bits // 8}") if bits in (8, 16, 32, 64) else None
    if bits in (1, 2, 4, 8):
        return np.dtype(np.uint8)
    if 8 < bits <= 16:
        return np.dtype(np.uint16)
    return np.dtype(f"u{bits // 8}") if bits in (32, 64) else None
