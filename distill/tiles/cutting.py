"""Large images and their masks, cut into tiles: a data set of the `folder` layout.

    DST/{train,val,test}/images/STEM_rTOP_cLEFT.*   masks/…   classes.json
    DST/tiles.csv      of each tile: where it comes from, its share without data, and of each class among valid pixels
    DST/tiles.json     how it was cut

All tiles of an image are in one split. An image counts as cut once its rows are in `DST/.cut/`, so an interrupted
cutting goes on with the image that it was at, and one that is finished takes in only what is new.
"""

import csv
import json
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from deploy.errors import UserError
from deploy.evaluation.labeled_data import write_image
from deploy.files.atomic import atomic_write, write_json
from deploy.files.images import TIFF_SUFFIXES, read_mask, write_png
from deploy.files.tiff import read_bands
from deploy.raster.geo import GeoSource, gdal
from deploy.raster.sources import ArraySource
from distill.data.datasets.folder import read_folder
from distill.data.datasets.masks import Legend
from distill.data.datasets.pairs import Pair
from distill.data.sample import IGNORE
from distill.reporting.csv_files import Cell, write_csv

DONE = ".cut"
NAMED = ("split", "tile", "source", "top", "left", "height", "width", "no data", "valid")


@dataclass(frozen=True)
class Cut:
    """How images are cut."""

    size: tuple[int, int]
    """Height × width of a tile; an image that is smaller along a side gives tiles as large as itself there."""
    stride: tuple[int, int]
    """From one tile to the next; the last of a row or column ends where the image does."""
    max_no_data: float = 1.0
    """Tiles with a larger share without data are left out, as are those without any."""


@dataclass(frozen=True)
class Result:
    """What became of a split."""

    split: str
    images: int
    tiles: int


def cut_folder(source: Path, target: Path, cut: Cut) -> list[Result]:
    """Cut the labeled folder `source` (see `distill.data.datasets.folder`) into `target`; say how much there is of each split.

    Images may be any of the `folder` layout; GeoTIFFs are read by windows and keep their place where rasterio is there.

    Raises:
        UserError: a folder that is not laid out so, a mask that does not fit its image, or a target that holds
            something else.
    """
    splits, classes, legend, settings = read_folder(source)
    names = [info.name for info in classes]
    _claim(target, {**asdict(cut), "classes": names})
    channels = {"channels": settings.channels} if settings and settings.channels else {}
    entries = [{"name": info.name, "color": info.color} for info in classes]
    write_json(target / "classes.json", {"classes": entries, **channels})
    if splits["test"] is splits["val"]:
        del splits["test"]
    header, results = (*NAMED, *names), []
    for split, pairs in splits.items():
        for pair in pairs:
            done = _done(target, split, pair)
            if not done.exists():
                write_csv(done, header, _cut_image(pair, legend, cut, split, target))
        rows = sum(len(_rows(_done(target, split, pair))) for pair in pairs)
        results.append(Result(split, len(pairs), rows))
    kept = [_done(target, split, pair) for split, pairs in splits.items() for pair in pairs]
    write_csv(target / "tiles.csv", header, (row for path in kept for row in _rows(path)))
    return results


def starts(length: int, size: int, stride: int) -> list[int]:
    """Where tiles begin along a side of that length: every `stride` pixels, and such that the last ends at its end."""
    last = max(0, length - size)
    return sorted({*range(0, last, stride), last})


def _claim(target: Path, settings: dict[str, object]) -> None:
    """Write `tiles.json`, or check that an earlier cutting was the same."""
    path = target / "tiles.json"
    asked = json.loads(json.dumps(settings))
    if path.exists():
        stored = json.loads(path.read_text())
        for name in asked:
            if stored.get(name) != asked[name]:
                raise UserError(
                    f"{target}: was cut with {name} {stored.get(name)}, asked for is {asked[name]}; use another folder"
                )
    elif target.exists() and any(target.iterdir()):
        raise UserError(f"{target}: holds other files; give a new folder")
    write_json(path, settings)


def _done(target: Path, split: str, pair: Pair) -> Path:
    return target / DONE / split / f"{pair.id}.csv"


def _rows(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def _cut_image(pair: Pair, legend: Legend, cut: Cut, split: str, target: Path) -> Iterator[list[Cell]]:
    """Write the tiles of an image, and yield the row of each."""
    labels = legend.ids(read_mask(pair.mask), pair.mask)
    with _opened(pair.image) as image:
        if labels.shape != (image.height, image.width):
            mask, its = labels.shape, (image.height, image.width)
            raise UserError(f"{pair.mask}: is {mask[0]}×{mask[1]} pixels, its image {its[0]}×{its[1]}")
        for top, left, pixels, has_data in _windows(image, cut):
            height, width = has_data.shape
            known = labels[top : top + height, left : left + width]
            label = np.where(has_data, known, IGNORE).astype(np.uint8)
            name = f"{pair.id}_r{top:05d}_c{left:05d}"
            _write(target / split, name, pixels, label, image, (top, left))
            counts = np.bincount(label[label != IGNORE], minlength=len(legend.values))
            shares = (counts / counts.sum()).tolist() if counts.any() else [None] * len(counts)
            place = [split, name, pair.image.name, top, left, height, width]
            yield [*place, 1 - float(has_data.mean()), float(counts.sum() / label.size), *shares]


def _windows(image: GeoSource | ArraySource, cut: Cut) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """Of the tiles to keep: top, left, pixels H×W×C (floats with NaN where there is no data), where there is data."""
    height, width = min(cut.size[0], image.height), min(cut.size[1], image.width)
    for top in starts(image.height, cut.size[0], cut.stride[0]):
        for left in starts(image.width, cut.size[1], cut.stride[1]):
            pixels, has_data = image.read_window(top, left, height, width)
            has_data &= np.isfinite(pixels).all(axis=2)
            if pixels.dtype != np.uint8:
                pixels = np.where(has_data[..., None], pixels, np.float32(np.nan))
            if has_data.any() and 1 - has_data.mean() <= cut.max_no_data:
                yield top, left, pixels, has_data


def _opened(path: Path) -> closing[GeoSource] | nullcontext[ArraySource]:
    """By windows where it is a TIFF and rasterio is there, else as a whole."""
    if path.suffix.lower() in TIFF_SUFFIXES and find_spec("rasterio") is not None:
        return closing(GeoSource(path))
    return nullcontext(ArraySource(read_bands(path)))


def _write(
    folder: Path,
    name: str,
    pixels: np.ndarray,
    label: np.ndarray,
    source: GeoSource | ArraySource,
    at: tuple[int, int],
) -> None:
    """Write the mask, then the image: as GeoTIFF what comes from one, else as PNG or `.npy`."""
    image, mask = folder / "images" / name, folder / "masks" / name
    if isinstance(source, GeoSource):
        _write_geotiff(mask.with_name(f"{name}.tif"), label[..., None], source, at)
        _write_geotiff(image.with_name(f"{name}.tif"), pixels, source, at)
    else:
        write_png(mask.with_name(f"{name}.png"), label)
        write_image(image, pixels)


def _write_geotiff(path: Path, pixels: np.ndarray, source: GeoSource, at: tuple[int, int]) -> None:
    """H×W×C where it lies on the earth, atomically."""
    dataset = source.dataset
    height, width, bands = pixels.shape
    place, (top, left) = dataset.transform, at
    x, y = (a * left + b * top + c for a, b, c in ((place.a, place.b, place.c), (place.d, place.e, place.f)))
    with gdal() as rasterio:
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
        }
        with rasterio.MemoryFile() as memory:
            with memory.open(**profile) as file:
                file.write(np.moveaxis(pixels, -1, 0))
            with atomic_write(path) as out:
                out.write(memory.read())
