"""Mosaics that GDAL's virtual rasters (`gdalbuildvrt`) describe, read without GDAL's driver.

That one would read any file or address that a VRT names, and has rules of its own for no data. Here a VRT only says
which GeoTIFFs lie where: each is read as everywhere (`docs/reading.md`), and what cannot be meant by that is refused.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

from deploy.errors import UserError
from deploy.files.gdal import import_rasterio
from deploy.files.gdal_metadata import LONGEST_XML, parse_number, parse_xml
from deploy.files.place import Place
from deploy.files.tiff_header import TiffHeader, read_header
from deploy.files.tiff_values import dtype_of
from deploy.raster.mosaic import Member, Mosaic

_REMEDY = "write it as a GeoTIFF: gdal_translate"
_SOURCES = ("SimpleSource", "ComplexSource")
_OF_DATASETS = {"SRS", "GeoTransform", "Metadata", "OverviewList", "VRTRasterBand"}
_NAMES = {"MaskBand": "a mask band", "GCPList": "ground control points"}
_OF_BANDS = {
    "NoDataValue",
    "ColorInterp",
    "Metadata",
    "Description",
    "Scale",
    "Offset",
    "Histograms",
    *_SOURCES,
}
_OF_SOURCES = {"SourceFilename", "SourceBand", "SourceProperties", "SrcRect", "DstRect", "NODATA"}


class _Piece(NamedTuple):
    """A band of a file, and where it lies."""

    path: Path
    band: int
    source: tuple[int, int, int, int]
    """Row, column, height and width in the file."""
    target: tuple[int, int]
    """Row and column in the mosaic."""


def read_vrt(path: Path, bands: Sequence[int] | None) -> Mosaic:
    """Read a VRT.

    Args:
        path: the file.
        bands: bands to read, numbered from 1; None: all but alpha.

    Raises:
        UserError: it cannot be read; it does anything but place parts of local GeoTIFFs, pixel by pixel; or it says of
            no data, scale or offset something else than its files. The message names it.
    """
    root = _root(path)
    every = root.findall("VRTRasterBand")
    usual = [i + 1 for i, one in enumerate(every) if one.findtext("ColorInterp") != "Alpha"]
    chosen = list(usual if bands is None else bands)
    if not chosen or any(band not in range(1, len(every) + 1) for band in chosen):
        raise UserError(f"{path}: has bands 1 to {len(every)}, but {chosen} were requested")
    headers: dict[Path, TiffHeader] = {}
    channels = [list(_pieces(every[band - 1], path, headers)) for band in chosen]
    members = tuple(_members(channels))
    if not members:
        raise UserError(f"{path}: names no file; make it again with gdalbuildvrt")
    height, width = (_integer(root.get(name), path) for name in ("rasterYSize", "rasterXSize"))
    for one in members:
        if one.row < 0 or one.col < 0 or one.row + one.height > height or one.col + one.width > width:
            raise UserError(f"{path}: {one.path} reaches beyond it; make it again with gdalbuildvrt")
    names = tuple(
        _name(every[band - 1], found, headers) for band, found in zip(chosen, channels, strict=True)
    )
    dtype = dtype_of(headers[members[0].path])
    return Mosaic(path, members, height, width, names, dtype, _place(root, path))


def _root(path: Path) -> Element:
    try:
        with open(path, "rb") as file:
            text = file.read(LONGEST_XML + 1).decode("utf-8", "replace")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if len(text) > LONGEST_XML:
        raise UserError(f"{path}: is too large for a VRT")
    root = parse_xml(text, str(path))
    if root.tag != "VRTDataset" or root.get("subClass") is not None:
        raise UserError(f"{path}: is no VRT, or one that computes pixels (warped, pansharpened); {_REMEDY}")
    odd = [one.tag for one in root if one.tag not in _OF_DATASETS]
    if odd:
        raise UserError(f"{path}: has {_NAMES.get(odd[0], odd[0])}; {_REMEDY}")
    return root


def _name(band: Element, pieces: Sequence[_Piece], headers: Mapping[Path, TiffHeader]) -> str:
    """Description of a band, or of that of its first file; "" without one."""
    own = [headers[one.path].metadata.names[one.band - 1] for one in pieces[:1]]
    return band.findtext("Description") or "".join(own)


def _pieces(band: Element, path: Path, headers: dict[Path, TiffHeader]) -> Iterator[_Piece]:
    """The files of a band, in the order of painting."""
    odd = [one.tag for one in band if one.tag not in _OF_BANDS]
    if odd or band.get("subClass") is not None:
        raise UserError(f"{path}: a band has {(odd or [band.get('subClass')])[0]}; {_REMEDY}")
    for one in band:
        if one.tag not in _SOURCES:
            continue
        piece = _piece(one, path)
        header = headers.setdefault(piece.path, read_header(piece.path))
        _check_meaning(band, one, piece, header, path)
        yield piece


def _piece(source: Element, path: Path) -> _Piece:
    odd = [one.tag for one in source if one.tag not in _OF_SOURCES]
    if odd:
        raise UserError(f"{path}: a source has {odd[0]}; {_REMEDY}")
    name = source.find("SourceFilename")
    if name is None or not name.text:
        raise UserError(f"{path}: a source has no SourceFilename; make it again with gdalbuildvrt")
    file = path.parent / name.text if name.get("relativeToVRT") == "1" else Path(name.text)
    if not file.is_file():
        raise UserError(f"{file}: is named in {path}, but there is no such file")
    source_box, target_box = (_box(source.find(tag), path) for tag in ("SrcRect", "DstRect"))
    if source_box[2:] != target_box[2:]:
        raise UserError(f"{path}: resamples {file.name}; {_REMEDY}")
    return _Piece(file, _integer(source.findtext("SourceBand", "1"), path), source_box, target_box[:2])


def _check_meaning(band: Element, source: Element, piece: _Piece, header: TiffHeader, path: Path) -> None:
    """Refuse a VRT that gives a file's numbers another meaning than the file does."""
    if piece.band not in range(1, header.samples + 1):
        raise UserError(
            f"{path}: {piece.path.name} has no band {piece.band}; make it again with gdalbuildvrt"
        )
    top, left, height, width = piece.source
    if top < 0 or left < 0 or top + height > header.height or left + width > header.width:
        raise UserError(f"{path}: reads beyond {piece.path.name}; make it again with gdalbuildvrt")
    own = (
        ("NoDataValue", band, header.nodata),
        ("NODATA", source, header.nodata),
        ("Scale", band, header.metadata.scales[piece.band - 1]),
        ("Offset", band, header.metadata.offsets[piece.band - 1]),
    )
    for tag, element, value in own:
        text = element.findtext(tag)
        if text is not None and not _same(parse_number(text, f"{path}: its {tag}"), value):
            raise UserError(
                f"{path}: its {tag} is {text.strip()[:40]}, that of {piece.path.name} "
                f"{'not set' if value is None else f'{value:g}'}; set it in the files: gdal_edit.py"
            )


def _same(one: float, other: float | None) -> bool:
    return other is not None and (
        one == other or (one != one and other != other) or abs(one - other) <= 1e-6 * abs(one)
    )


def _members(channels: list[list[_Piece]]) -> Iterator[Member]:
    """One member for each file where all channels have the same files in the same places; else one for each band."""
    layouts = [[(one.path, one.source, one.target) for one in pieces] for pieces in channels]
    if all(layout == layouts[0] for layout in layouts):
        for same in zip(*channels, strict=True):
            yield _member(same[0], tuple(one.band for one in same), None)
        return
    for channel, pieces in enumerate(channels):
        for one in pieces:
            yield _member(one, (one.band,), (channel,))


def _member(piece: _Piece, bands: tuple[int, ...], channels: tuple[int, ...] | None) -> Member:
    top, left, height, width = piece.source
    return Member(piece.path, *piece.target, height, width, top, left, bands, channels)


def _box(element: Element | None, path: Path) -> tuple[int, int, int, int]:
    """Row, column, height and width."""
    if element is None:
        raise UserError(f"{path}: a source has no SrcRect or DstRect; make it again with gdalbuildvrt")
    row, col, height, width = (
        _integer(element.get(name), path) for name in ("yOff", "xOff", "ySize", "xSize")
    )
    return row, col, height, width


def _integer(text: str | None, path: Path) -> int:
    """A whole number; GDAL writes some of them with decimals."""
    value = parse_number(text or "", f"{path}: a size or position")
    if abs(value) >= 2**31 or value != int(value):
        raise UserError(f"{path}: places a file between pixels ({value:g}); {_REMEDY}")
    return int(value)


def _place(root: Element, path: Path) -> Place:
    rasterio = import_rasterio()
    numbers = [
        parse_number(one, f"{path}: its GeoTransform")
        for one in root.findtext("GeoTransform", "0,1,0,0,0,1").split(",")
    ]
    if len(numbers) != 6:
        raise UserError(
            f"{path}: its GeoTransform has {len(numbers)} numbers; make it again with gdalbuildvrt"
        )
    text = root.findtext("SRS", "").strip()
    try:
        crs = rasterio.crs.CRS.from_user_input(text) if text else None
    except rasterio.errors.CRSError as error:
        raise UserError(f"{path}: its SRS cannot be read; make it again with gdalbuildvrt") from error
    return Place(crs, rasterio.Affine.from_gdal(*numbers))
