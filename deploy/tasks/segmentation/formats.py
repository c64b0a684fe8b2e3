"""The files that a segmentation result can be written as; each writer takes the path without its ending."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deploy.bundle.manifest import ClassInfo
from deploy.files.atomic import atomic_write, write_json
from deploy.files.images import write_png
from deploy.look import Look
from deploy.tasks.segmentation import polygons, rle
from deploy.tasks.segmentation.counts import class_counts
from deploy.tasks.segmentation.model import SegmentationResult
from deploy.tasks.task import Format
from deploy.visualize import overlay, side_by_side

Classes = Sequence[ClassInfo]


def _mask(base: Path, _: np.ndarray, result: SegmentationResult, __: Classes, ___: Look) -> Path:
    path = base.with_name(f"{base.name}_mask.png")
    write_png(path, result.labels)
    return path


def _overlay(base: Path, image: np.ndarray, result: SegmentationResult, classes: Classes, look: Look) -> Path:
    path = base.with_name(f"{base.name}_overlay.png")
    write_png(path, overlay(image, result.labels, classes, look.legend, look.opacity))
    return path


def _beside(base: Path, image: np.ndarray, result: SegmentationResult, classes: Classes, look: Look) -> Path:
    path = base.with_name(f"{base.name}_beside.png")
    write_png(path, side_by_side(image, overlay(image, result.labels, classes, look.legend, look.opacity)))
    return path


def _probabilities(base: Path, _: np.ndarray, result: SegmentationResult, __: Classes, ___: Look) -> Path:
    path = base.with_name(f"{base.name}_probabilities.npy")
    with atomic_write(path) as file:
        np.save(file, result.probabilities)
    return path


def _npz(base: Path, _: np.ndarray, result: SegmentationResult, classes: Classes, __: Look) -> Path:
    path = base.with_name(f"{base.name}.npz")
    with atomic_write(path) as file:
        np.savez_compressed(
            file,
            labels=result.labels,
            valid=result.valid,
            probabilities=result.probabilities.astype(np.float16),
            classes=np.array([info.name for info in classes]),
        )
    return path


def _json(base: Path, _: np.ndarray, result: SegmentationResult, classes: Classes, __: Look) -> Path:
    path = base.with_name(f"{base.name}.json")
    write_json(path, _summary(result, classes))
    return path


def _coco(base: Path, _: np.ndarray, result: SegmentationResult, classes: Classes, __: Look) -> Path:
    path = base.with_name(f"{base.name}_coco.json")
    height, width = result.labels.shape
    names = [{"id": index, "name": info.name} for index, info in enumerate(classes)]
    image = {"id": 0, "file_name": base.name, "height": height, "width": width}
    found = [{"id": i, "image_id": 0, **one} for i, one in enumerate(rle.annotations(result.labels, classes))]
    write_json(path, {"images": [image], "categories": names, "annotations": found})
    return path


def _geojson(base: Path, _: np.ndarray, result: SegmentationResult, classes: Classes, __: Look) -> Path:
    path = base.with_name(f"{base.name}.geojson")
    write_json(path, polygons.collection(result.labels, classes))
    return path


def _summary(result: SegmentationResult, classes: Classes) -> dict[str, Any]:
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
