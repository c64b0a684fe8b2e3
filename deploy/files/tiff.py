"""Read whole TIFF images: any number of bands and any type of numbers, the same by whatever library is installed.

`deploy.files.tiff_header` says what a file holds, a library decodes its stored numbers, and `deploy.files.tiff_values`
gives them their meaning. The libraries, in this order: rasterio (`pip install 'edgedistill[geo]'`), tifffile, which
training installs, and Pillow, which is always there. The first that can read the file without changing a number does;
if none can, the message names the package to install. `deploy.raster.geo` reads windows of larger files, with the same
meaning. Neither a georeference nor a coordinate system is needed.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deploy.errors import UserError
from deploy.files.decoding import check_channels, check_order, check_size, quiet
from deploy.files.pillow_tiff import pillow_lacks, read_by_pillow
from deploy.files.tiff_header import JPEG, WHITE_IS_ZERO, TiffHeader, read_header
from deploy.files.tiff_values import Values, interpret

_CODECS = {
    2: "CCITT", 3: "CCITT fax 3", 4: "CCITT fax 4", 5: "LZW", 6: "old JPEG", 7: "JPEG", 8: "Deflate",
    32773: "PackBits", 32946: "Deflate", 34712: "JPEG 2000", 34887: "LERC", 34925: "LZMA", 50000: "Zstandard",
    50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_ALWAYS_HERE = "Pillow"
VOID = 255
"""Label of pixels that are not labeled."""
_ALWAYS = (1, 5, 7, 8, 32773, 32946)
"""Compressions that every build of GDAL decodes."""


class Stored(NamedTuple):
    """What a library decoded."""

    samples: np.ndarray
    """H×W×S, as stored."""
    mask: np.ndarray | None
    """bool H×W: True where the internal mask says that there is data."""


def read_bands(path: Path, channels: Sequence[str] | None = None) -> np.ndarray:
    """Read a TIFF file in its own units.

    Args:
        path: the file.
        channels: names of the channels that the bundle wants, checked before pixels are decoded; None: any.

    Returns:
        H×W×C. uint8 and uint16 are kept; all other numbers become float32, and so do files that say where data is
        missing: such values are NaN. A pixel of uint8 is missing only where all of its bands have the no-data value, as
        0 is a color, too. Scale and offset are applied, in float32. A palette becomes its colors, white-is-zero becomes
        black-is-zero, gray of less than 8 bits is stretched to 0..255, and alpha is a mask: 0 is no data.

    Raises:
        UserError: the file is missing or damaged, its meaning is not defined (`deploy.files.tiff_header.read_header`),
            or no library here can read it. The message names the file and the remedy.
    """
    return read_values(Path(path), channels).with_nan()


def read_values(path: Path, channels: Sequence[str] | None = None) -> Values:
    """`read_bands` with the pixels as they are, and where they are missing beside them.

    Raises:
        UserError: as `read_bands`.
    """
    header = _header(path)
    check_channels(path, header.bands, channels)
    check_order(path, header.names, channels)
    samples, mask = read_stored(path, header)
    order = [*header.channels, *([] if header.alpha is None else [header.alpha])]
    return interpret(samples[..., order], mask, header, header.channels, path)


def read_labels(path: Path) -> np.ndarray:
    """Read a TIFF of labels: its stored numbers, neither scaled nor colored, without alpha.

    Returns:
        H×W×C as stored.

    Raises:
        UserError: as `read_bands`; or it is white-is-zero, or marks pixels without data by a value below 255 or a mask,
            so that it is open which number is a class.
    """
    header = _header(path)
    if header.photometric == WHITE_IS_ZERO:
        raise UserError(
            f"{path}: is white-is-zero, so it is open whether its classes count from black or from white; write it "
            "again as black-is-zero: gdal_translate -co PHOTOMETRIC=MINISBLACK"
        )
    samples, mask = read_stored(path, header)
    labels = samples[..., header.channels]
    nodata = header.nodata
    if nodata is not None and nodata != VOID and (labels == nodata).any():
        raise UserError(
            f"{path}: its no-data value {nodata:g} occurs in it; if that is a class: gdal_edit.py -unsetnodata; "
            f"if it is void, write {VOID} there"
        )
    if mask is not None and not mask.all():
        raise UserError(f"{path}: has an internal mask; write {VOID}, which is void, where it hides labels")
    return labels


def band_names(path: Path) -> tuple[str, ...] | None:
    """Names of a TIFF's bands, such as VV and VH; None unless all bands have names that differ.

    Also None where the file is no TIFF or cannot be read.
    """
    try:
        names = _header(path).names
    except UserError:  # `read_bands` reports what is wrong
        return None
    return names if all(names) and len(set(names)) == len(names) else None


def read_stored(path: Path, header: TiffHeader) -> Stored:
    """Decode all samples of a TIFF file, and its internal mask, without changing a number.

    Raises:
        UserError: the file is too large for one piece or damaged, or no library here can read it.
    """
    stored = header.height * header.width * header.samples * header.dtype.itemsize
    check_size(path, (header.height, header.width), stored, path.stat().st_size)
    reasons: list[str] = []
    for name, lacks, read in _LIBRARIES:
        missing = name != _ALWAYS_HERE and find_spec(name) is None
        reason = f"{name} is not installed" if missing else lacks(header)
        if reason is not None:
            reasons.append(reason)
            continue
        try:
            samples, mask = read(path, header)
        except ImportError:  # tifffile imports codecs when it needs them
            reasons.append(f"{name} lacks the codec {_codec(header)} (pip install imagecodecs)")
            continue
        except MemoryError:
            raise
        except Exception as error:  # the libraries raise errors of any type for damaged files
            raise UserError(f"{path}: {undecodable(error, header, name)}") from error
        samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
        _check(samples, header, name, path)
        return Stored(samples, mask)
    raise UserError(
        f"{path}: cannot be read here ({'; '.join(dict.fromkeys(reasons))}): pip install 'edgedistill[geo]' for "
        "rasterio, or save its bands as .npy"
    )


def _header(path: Path) -> TiffHeader:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    return read_header(path)


def _codec(header: TiffHeader) -> str:
    return _CODECS.get(header.compression, f"number {header.compression}")


def undecodable(error: Exception, header: TiffHeader, library: str) -> str:
    """Why a library failed: the file is damaged, or compressed in a way that the library may not know."""
    reason = (str(error.__cause__ or error).splitlines() or [type(error).__name__])[0]
    if header.compression in _ALWAYS:
        return f"corrupt image, cannot be read as TIFF ({reason})"
    return (
        f"cannot be decoded ({reason}): {library} may lack its codec, {_codec(header)}: pip install "
        "'edgedistill[geo]' imagecodecs, or save it with Deflate; if that does not help, the file is corrupt"
    )


def _check(samples: np.ndarray, header: TiffHeader, name: str, path: Path) -> None:
    """A library that gives other numbers than the header says must not be believed."""
    shape = (header.height, header.width, header.samples)
    half = header.dtype == np.float16 and samples.dtype == np.float32
    if samples.shape != shape or (samples.dtype != header.dtype and not half):
        found = f"{samples.dtype} {'×'.join(map(str, samples.shape))}"
        raise UserError(
            f"{path}: {name} reads {found} where the file says {header.dtype} {'×'.join(map(str, shape))}; "
            "save its bands as .npy"
        )


def _gdal_lacks(header: TiffHeader) -> str | None:
    return "rasterio reads no numbers of 24 bits" if header.bits == 24 else None


def _by_rasterio(path: Path, header: TiffHeader) -> Stored:
    import rasterio  # optional dependency

    with quiet():  # it warns of files without a georeference
        source = rasterio.open(path, driver="GTiff")  # a VRT by that name reads other files
    with source:
        mask = None if header.mask_page is None else source.read_masks(1) > 0
        return Stored(np.ascontiguousarray(source.read().transpose(1, 2, 0)), mask)


def _tifffile_lacks(header: TiffHeader) -> str | None:
    if find_spec("imagecodecs") is not None:
        return None
    import tifffile  # optional dependency

    if header.compression == JPEG or header.bits not in (1, 8, 16, 32, 64):
        return "tifffile lacks a codec (pip install imagecodecs)"
    try:
        tifffile.TIFF.DECOMPRESSORS[header.compression]
        tifffile.TIFF.UNPREDICTORS[header.predictor]
    except KeyError:
        return f"tifffile lacks the codec {_codec(header)} or its predictor (pip install imagecodecs)"
    return None


def _by_tifffile(path: Path, header: TiffHeader) -> Stored:
    import tifffile  # optional dependency

    with tifffile.TiffFile(path) as file:
        # always planes × depth × height × width × samples: nothing to guess
        planes = file.pages[0].asarray(squeeze=False)
        mask = None
        if header.mask_page is not None:
            mask = file.pages[header.mask_page].asarray(squeeze=False)[0, 0, ..., 0] > 0
    samples = np.moveaxis(planes[:, 0, ..., 0], 0, -1) if header.separate else planes[0, 0]
    samples = samples.view(np.uint8) if samples.dtype == bool else samples
    return Stored(np.ascontiguousarray(samples), mask)


_Lacks = Callable[[TiffHeader], str | None]
_Read = Callable[[Path, TiffHeader], tuple[np.ndarray, np.ndarray | None]]
_LIBRARIES: tuple[tuple[str, _Lacks, _Read], ...] = (
    ("rasterio", _gdal_lacks, _by_rasterio),
    ("tifffile", _tifffile_lacks, _by_tifffile),
    (_ALWAYS_HERE, pillow_lacks, read_by_pillow),
)
"""Name, why it cannot read a file (None: it can), and the reader."""
