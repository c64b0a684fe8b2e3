"""The files that a segmentation result can be written as; by name."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from deploy.bundle.manifest import ClassInfo
from deploy.errors import warn_once
from deploy.files.atomic import atomic_write, write_json
from deploy.files.images import write_png
from deploy.files.place import has_crs
from deploy.tasks.segmentation import geotiff, polygons, rle
from deploy.tasks.segmentation.counts import class_counts
from deploy.tasks.segmentation.model import SegmentationResult
from deploy.tasks.task import Format, Predicted
from deploy.visualize import overlay, side_by_side


def _mask(one: Predicted) -> Path:
    """A GeoTIFF where the image has a place on the ground, as `predict-raster` writes it; else PNG."""
    place = polygons.place_of(one.source)
    if place is not None:
        path, result = one.path("_mask.tif"), one.result
        labels = np.where(result.valid, result.labels, geotiff.NODATA).astype(np.uint8)
        geotiff.write_labels(path, found := geotiff.Labels(labels, place), found, one.classes)
        return path
    if one.source is not None and find_spec("rasterio") is None and has_crs(one.source):
        warn_once(
            "masks are PNG, which do not say where a GeoTIFF lies; for masks as GeoTIFF: pip install 'edgedistill[geo]'"
        )
    path = one.path("_mask.png")
    write_png(path, one.result.labels)
    return path


def _overlay(one: Predicted) -> Path:
    path = one.path("_overlay.png")
    write_png(path, _drawn(one))
    return path


def _beside(one: Predicted) -> Path:
    path = one.path("_beside.png")
    write_png(path, side_by_side(one.image, _drawn(one)))
    return path


def _drawn(one: Predicted) -> np.ndarray:
    return overlay(one.image, one.result.labels, one.classes, one.look.legend, one.look.opacity)


def _probabilities(one: Predicted) -> Path:
    path = one.path("_probabilities.npy")
    with atomic_write(path) as file:
        np.save(file, one.result.probabilities)
    return path


def _npz(one: Predicted) -> Path:
    path = one.path(".npz")
    with atomic_write(path) as file:
        np.savez_compressed(
            file,
            labels=one.result.labels,
            valid=one.result.valid,
            probabilities=one.result.probabilities.astype(np.float16),
            classes=np.array([info.name for info in one.classes]),
        )
    return path


def _json(one: Predicted) -> Path:
    path = one.path(".json")
    write_json(path, _summary(one.result, one.classes))
    return path


def _coco(one: Predicted) -> Path:
    """Ids come from the name of the result, so that the files of a folder can be put together."""
    path = one.path("_coco.json")
    height, width = one.result.labels.shape
    # 45 bits: two of 100,000 images get the same with a probability of 10⁻⁴, and JSON keeps 53 bits exactly
    number = int.from_bytes(sha256(one.base.name.encode()).digest()[:6], "big") >> 3
    names = [{"id": index, "name": info.name} for index, info in enumerate(one.classes)]
    file = one.base.name if one.source is None else one.source.name
    image = {"id": number, "file_name": file, "height": height, "width": width}
    found = [
        {"id": (number << 8) + annotation["category_id"], "image_id": number, **annotation}
        for annotation in rle.annotations(one.result.labels, one.classes)
    ]
    write_json(path, {"images": [image], "categories": names, "annotations": found})
    return path


def _geojson(one: Predicted) -> Path:
    path = one.path(".geojson")
    write_json(path, polygons.collection(one.result.labels, one.classes, one.source))
    return path


def _summary(result: SegmentationResult, classes: Sequence[ClassInfo]) -> dict[str, Any]:
    """Size, pixels and share of each class, pixels without data, and milliseconds of a result, for JSON."""
    height, width = result.labels.shape
    found = class_counts(result.labels, classes)
    return {
        "height": height,
        "width": width,
        "classes": found,
        "no_data": height * width - sum(one["pixels"] for one in found),
        "ms": round(result.timings.total_ms, 3),
    }


FORMATS: Mapping[str, Format] = {
    "mask": _mask,
    "overlay": _overlay,
    "beside": _beside,
    "probabilities": _probabilities,
    "npz": _npz,
    "json": _json,
    "coco": _coco,
    "geojson": _geojson,
}
