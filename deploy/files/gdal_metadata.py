"""What GDAL stores of a raster's bands besides pixels: scales, offsets, names and values without data, in XML."""

import math
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from deploy.errors import UserError

LONGEST_XML = 2**24
"""Bytes of XML that are parsed."""
_IN_SIDECAR = ("NoDataValue", "Scale", "Offset", "ColorTable")


class GdalMetadata(NamedTuple):
    """One scale, offset and name for each sample."""

    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    names: tuple[str, ...]
    """"" where a sample has none."""
    nodata: tuple[float, ...] | None
    """The pixel that means no data, one value for each sample (NODATA_VALUES); None where there is none."""


def parse_metadata(text: str, samples: int, path: Path) -> GdalMetadata:
    """Parse the content of GDAL's tag 42112; "" has neither scales nor names.

    Raises:
        UserError: the text is not XML, or a scale or offset is not a number.
    """
    items = list(parse_xml(text, f"{path}: its GDAL metadata")) if text.strip() else []
    numbers = {
        role: tuple(
            default if value == "" else parse_number(value, f"{path}: its {role}")
            for value in _by_sample(items, role, samples)
        )
        for role, default in (("scale", 1.0), ("offset", 0.0))
    }
    if not all(math.isfinite(one) for values in numbers.values() for one in values) or 0 in numbers["scale"]:
        raise UserError(
            f"{path}: a scale is 0, or a scale or offset is not finite; set it with gdal_edit.py -scale"
        )
    whole = [one.text or "" for one in items if one.get("name") == "NODATA_VALUES" and not one.get("domain")]
    values = tuple(parse_number(one, f"{path}: NODATA_VALUES") for one in whole[0].split()) if whole else None
    if values is not None and len(values) != samples:
        raise UserError(
            f"{path}: NODATA_VALUES has {len(values)} values for {samples} bands; give one for each"
        )
    return GdalMetadata(
        numbers["scale"], numbers["offset"], tuple(_by_sample(items, "description", samples)), values
    )


def parse_number(text: str, what: str) -> float:
    """The number that a text holds, "nan" included.

    Raises:
        UserError: it holds none; the message begins with `what`.
    """
    text = text.strip()
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{what} is {text[:40]!r}, not a number; set it with gdal_edit.py") from None


def check_sidecars(path: Path) -> None:
    """Check that no file beside a TIFF changes the meaning of its pixels, as only GDAL would read it.

    Raises:
        UserError: there is a mask, or a no-data value, scale, offset or palette. The message names the file.
    """
    mask, other = (path.with_name(f"{path.name}{suffix}") for suffix in (".msk", ".aux.xml"))
    remedy = f"put it into the file: gdal_translate --config GDAL_TIFF_INTERNAL_MASK YES {path.name} NEW.tif"
    if mask.is_file():
        raise UserError(f"{mask}: holds the mask of {path.name}; {remedy}")
    if not other.is_file():
        return
    try:
        with open(other, "rb") as file:
            root = parse_xml(file.read(LONGEST_XML).decode("utf-8", "replace"), str(other))
    except OSError as error:
        raise UserError(f"{other}: cannot be read ({error.strerror})") from error
    found = [one for one in _IN_SIDECAR if root.find(f"PAMRasterBand/{one}") is not None]
    if found:
        raise UserError(f"{other}: holds the {found[0]} of {path.name}; {remedy}")


def parse_xml(text: str, what: str) -> ElementTree.Element:
    """Parse XML that may come from anywhere.

    Raises:
        UserError: it is damaged, or has entities; the message begins with `what`.
    """
    if "<!" in text.replace("<!--", ""):  # entities may expand to any size
        raise UserError(f"{what} is not plain XML; write it again")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, RecursionError, ValueError) as error:
        raise UserError(f"{what} is damaged ({error}); write it again with gdal_translate") from error


def _by_sample(items: list[ElementTree.Element], role: str, samples: int) -> list[str]:
    """Text of the metadata for each sample in that role; "" where there is none."""
    found = {one.get("sample", "0"): one.text or "" for one in items if one.get("role") == role}
    return [found.get(str(sample), "") for sample in range(samples)]
