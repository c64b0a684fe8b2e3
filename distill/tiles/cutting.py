"""Cut large images and their masks into tiles: a data set in the `folder` layout.

    DST/{train,val,test}/images/STEM_rTOP_cLEFT.*   masks/…   classes.json
    DST/tiles.csv      for each tile: its source, its share of no data, and the share of each class in its valid pixels
    DST/tiles.json     the options

All tiles of an image are in the same split. An image counts as done once its rows are in `DST/.cut/`. So an interrupted
command continues with the image where it stopped, and a finished one processes only new images.
"""

import csv
import json
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deploy.errors import UserError
from deploy.evaluation.labeled_data import write_image
from deploy.files.atomic import atomic_write, write_json
from deploy.files.gdal import gdal
from deploy.files.images import TIFF_SUFFIXES, read_image, read_mask, write_png
from deploy.files.json_files import read_record
from deploy.raster.geo import GeoSource
from deploy.raster.sources import ArraySource
from distill.data.datasets.folder import read_folder
from distill.data.datasets.masks import Legend
from distill.data.datasets.pairs import Pair
from distill.data.sample import IGNORE
from distill.reporting.csv_files import Cell, write_csv

ROWS_FOLDER = ".cut"
COLUMNS = ("split", "tile", "source", "top", "left", "height", "width", "no data", "valid")


@dataclass(frozen=True)
class Tiling:
    """How images are cut into tiles."""

    size: tuple[int, int]
    """Height × width of a tile; along a side where the image is smaller, tiles have the size of the image."""
    stride: tuple[int, int]
    """Distance from one tile to the next; the last of a row or column ends where the image does."""
    max_no_data: float = 1.0
    """Tiles with a larger share of no data are left out, as are tiles without any data."""


@dataclass(frozen=True)
class SplitResult:
    """Number of images and tiles of a split."""

    split: str
    images: int
    tiles: int


def cut_folder(source: Path, target: Path, tiling: Tiling) -> list[SplitResult]:
    """Cut the images of a labeled folder into tiles.

    If rasterio is installed, GeoTIFFs are read window by window, and their tiles keep their georeference.

    Args:
        source: a folder as described in `distill.data.datasets.folder`.
        target: a new folder, or one that was cut with the same options.
        tiling: size and position of the tiles.

    Returns:
        The number of images and tiles of each split.

    Raises:
        UserError: the source has another layout, a mask does not fit its image, or the target holds something else.
    """
    splits, classes, legend, settings = read_folder(source)
    names = [info.name for info in classes]
    _claim_folder(target, {**asdict(tiling), "classes": names})
    channels = {"channels": settings.channels} if settings and settings.channels else {}
    entries = [{"name": info.name, "color": info.color} for info in classes]
    write_json(target / "classes.json", {"classes": entries, **channels})
    if splits["test"] is splits["val"]:
        del splits["test"]
    header, results = (*COLUMNS, *names), []
    for split, pairs in splits.items():
        for pair in pairs:
            path = _rows_path(target, split, pair)
            if not path.exists():
                write_csv(path, header, _cut_image(pair, legend, tiling, split, target))
        rows = sum(len(_rows(_rows_path(target, split, pair))) for pair in pairs)
        results.append(SplitResult(split, len(pairs), rows))
    paths = [_rows_path(target, split, pair) for split, pairs in splits.items() for pair in pairs]
    write_csv(target / "tiles.csv", header, (row for path in paths for row in _rows(path)))
    return results


def starts(length: int, size: int, stride: int) -> list[int]:
    """Where tiles begin along a side: every `stride` pixels, with the last tile moved back to end with the side."""
    last = max(0, length - size)
    return sorted({*range(0, last, stride), last})


def _claim_folder(target: Path, settings: dict[str, object]) -> None:
    """Write `tiles.json`, or check that it holds the same settings."""
    path = target / "tiles.json"
    asked = json.loads(json.dumps(settings))
    if path.exists():
        stored = read_record(path, dict[str, Any], "use another folder")
        for name in asked:
            if stored.get(name) != asked[name]:
                raise UserError(
                    f"{target}: was cut with {name} {stored.get(name)}, not {asked[name]}; use another folder"
                )
    elif target.exists() and any(target.iterdir()):
        raise UserError(f"{target}: holds other files; give a new folder")
    write_json(path, settings)


def _rows_path(target: Path, split: str, pair: Pair) -> Path:
    return target / ROWS_FOLDER / split / f"{pair.id}.csv"


def _rows(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def _cut_image(pair: Pair, legend: Legend, tiling: Tiling, split: str, target: Path) -> Iterator[list[Cell]]:
    """Write the tiles of an image, and yield the table row of each."""
    labels = legend.ids(read_mask(pair.mask), pair.mask)
    with _open_image(pair.image, labels.shape) as image:
        if labels.shape != (image.height, image.width):
            height, width = labels.shape
            raise UserError(
                f"{pair.mask}: is {height}×{width} pixels, its image {image.height}×{image.width}; "
                "give a mask of the same size"
            )
        for top, left, pixels, has_data in _windows(image, tiling):
            height, width = has_data.shape
            known = labels[top : top + height, left : left + width]
            label = np.where(has_data, known, IGNORE).astype(np.uint8)
            name = f"{pair.id}_r{top:05d}_c{left:05d}"
            _write(target / split, name, Tile(pixels, has_data, label, (top, left)), image)
            counts = np.bincount(label[label != IGNORE], minlength=len(legend.values))
            shares = (counts / counts.sum()).tolist() if counts.any() else [None] * len(counts)
            place = [split, name, pair.image.name, top, left, height, width]
            yield [*place, 1 - float(has_data.mean()), float(counts.sum() / label.size), *shares]


def _windows(
    image: GeoSource | ArraySource, tiling: Tiling
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """The tiles of an image that are not left out.

    Yields:
        Top, left, pixels H×W×C (floats have NaN where there is no data), and where there is data: bool H×W.
    """
    height, width = min(tiling.size[0], image.height), min(tiling.size[1], image.width)
    for top in starts(image.height, tiling.size[0], tiling.stride[0]):
        for left in starts(image.width, tiling.size[1], tiling.stride[1]):
            pixels, has_data = image.read_window(top, left, height, width)
            has_data &= np.isfinite(pixels).all(axis=2)
            if pixels.dtype != np.uint8:
                pixels = np.where(has_data[..., None], pixels, np.float32(np.nan))
            if has_data.any() and 1 - has_data.mean() <= tiling.max_no_data:
                yield top, left, pixels, has_data


def _open_image(path: Path, size: tuple[int, ...]) -> closing[GeoSource] | nullcontext[ArraySource]:
    """Open a TIFF for reading by windows if rasterio is installed; read any other image, of that size, as a whole."""
    if path.suffix.lower() in TIFF_SUFFIXES and find_spec("rasterio") is not None:
        return closing(GeoSource(path))
    return nullcontext(ArraySource(read_image(path, size=size)))


class Tile(NamedTuple):
    """A part of an image and its mask."""

    pixels: np.ndarray
    """H×W×C."""
    has_data: np.ndarray
    """bool H×W."""
    label: np.ndarray
    """uint8 H×W."""
    at: tuple[int, int]
    """Top and left in the image."""


def _write(folder: Path, name: str, tile: Tile, source: GeoSource | ArraySource) -> None:
    """Write the mask, then the image: as GeoTIFFs if the source is one, else as PNG or `.npy`.

    Args:
        folder: the folder of the split.
        name: stem of both files.
        tile: what to write.
        source: the image that the tile is cut from.
    """
    image, mask = folder / "images" / name, folder / "masks" / name
    if isinstance(source, GeoSource):
        # floats have NaN where there is no data; bytes need a mask, in every tile, so that all are read as one type
        known = tile.has_data if tile.pixels.dtype == np.uint8 and source.masked else None
        _write_geotiff(mask.with_name(f"{name}.tif"), tile.label[..., None], None, source, tile.at)
        _write_geotiff(image.with_name(f"{name}.tif"), tile.pixels, known, source, tile.at)
    else:
        write_png(mask.with_name(f"{name}.png"), tile.label)
        write_image(image, tile.pixels)


def _write_geotiff(
    path: Path, pixels: np.ndarray, known: np.ndarray | None, source: GeoSource, at: tuple[int, int]
) -> None:
    """Write H×W×C as a GeoTIFF with the georeference of its window, atomically; `known` becomes its internal mask."""
    dataset = source.dataset
    height, width, bands = pixels.shape
    place, (top, left) = dataset.transform, at
    x, y = (a * left + b * top + c for a, b, c in ((place.a, place.b, place.c), (place.d, place.e, place.f)))
    with gdal() as rasterio, rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        profile = {
            "driver": "GTiff",
            "height": height,
            "width": width,
            "count": bands,
            "dtype": pixels.dtype.name,
            "crs": dataset.crs,
            "transform": rasterio.Affine(place.a, place.b, x, place.d, place.e, y),
            "compress": "deflate",
            "nodata": np.nan if pixels.dtype == np.float32 else None,
            "photometric": "rgb" if bands == 3 and pixels.dtype == np.uint8 else "minisblack",
        }
        with rasterio.MemoryFile() as memory:
            with memory.open(**profile) as file:
                file.write(np.moveaxis(pixels, -1, 0))
                if known is not None:
                    file.write_mask(known)
                if bands == source.bands:
                    file.descriptions = source.header.names
            with atomic_write(path) as out:
                out.write(memory.read())
