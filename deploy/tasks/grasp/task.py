"""Grasp detection as a task (see `deploy.tasks.task`), scored by the success of the best grasp."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deploy.bundle.manifest import ClassInfo
from deploy.evaluation.metric import Metric
from deploy.files.atomic import atomic_write, write_json
from deploy.files.images import write_png
from deploy.look import Look
from deploy.tasks.grasp.draw import draw_grasps
from deploy.tasks.grasp.labeled import read_grasps, write_csv, write_grasps
from deploy.tasks.grasp.metrics import GraspMetrics
from deploy.tasks.grasp.model import COUNT, GraspModel, GraspResult
from deploy.tasks.task import Task
from deploy.visualize import render


class GraspScorer:
    """Success of the best grasp by the rectangle metric (see `deploy.tasks.grasp.metrics`)."""

    def __init__(self, _: Sequence[str] = ()) -> None:
        self.metrics = GraspMetrics(counts=(1, COUNT))

    def update(self, result: Any, truth: np.ndarray, valid: np.ndarray) -> None:
        """Compare the grasps of a result with the true ones N×5, and count them."""
        del valid  # true grasps count in holes too
        self.metrics.update(result.grasps, result.qualities, truth)

    def counts(self) -> list[np.ndarray]:
        """The counts of images by outcome."""
        return self.metrics.arrays()

    def score(self) -> float:
        """success@1."""
        return self.metrics.scores().success[1]

    def details(self) -> dict[str, float | None]:
        """Success of any of the first `COUNT` grasps."""
        scores = self.metrics.scores()
        return {f"success@{COUNT}": scores.success[COUNT]}


def _picture(image: np.ndarray, result: GraspResult, _: Sequence[ClassInfo]) -> np.ndarray:
    return draw_grasps(render(image), np.asarray(result.grasps), np.asarray(result.qualities))


def _panels(
    image: np.ndarray, truth: np.ndarray, results: Sequence[GraspResult], classes: Sequence[ClassInfo]
) -> list[np.ndarray]:
    return [draw_grasps(render(image), truth), *(_picture(image, one, classes) for one in results)]


def _words(result: GraspResult, _: Sequence[ClassInfo]) -> str:
    """The best grasp."""
    if len(result.grasps) == 0:
        return "nothing to grasp"
    x, y, angle, width, _height = result.grasps[0]
    more = f", and {len(result.grasps) - 1} more" if len(result.grasps) > 1 else ""
    return (
        f"grasp at ({x:.0f}, {y:.0f}), {np.degrees(angle):.0f}°, {width:.0f} pixels wide,"
        f" quality {result.qualities[0]:.2f}{more}"
    )


def _csv(base: Path, _: np.ndarray, result: GraspResult, __: Sequence[ClassInfo], ___: Look) -> Path:
    path = base.with_name(f"{base.name}_grasps.csv")
    write_csv(path, np.asarray(result.grasps), np.asarray(result.qualities))
    return path


def _overlay(
    base: Path, image: np.ndarray, result: GraspResult, classes: Sequence[ClassInfo], _: Look
) -> Path:
    path = base.with_name(f"{base.name}_overlay.png")
    write_png(path, _picture(image, result, classes))
    return path


def _maps(base: Path, _: np.ndarray, result: GraspResult, __: Sequence[ClassInfo], ___: Look) -> Path:
    path = base.with_name(f"{base.name}_maps.npy")
    with atomic_write(path) as file:
        np.save(file, result.maps)
    return path


def _json(base: Path, _: np.ndarray, result: GraspResult, __: Sequence[ClassInfo], ___: Look) -> Path:
    path = base.with_name(f"{base.name}.json")
    pairs = zip(np.asarray(result.grasps).tolist(), np.asarray(result.qualities).tolist(), strict=True)
    names = ("x", "y", "angle", "width", "height")
    found = [dict(zip(names, grasp, strict=True)) | {"quality": quality} for grasp, quality in pairs]
    write_json(path, {"grasps": found, "ms": round(result.timings.total_ms, 3)})
    return path


GRASP = Task(
    "grasp",
    metric=Metric("success@1", "success"),
    model=GraspModel,
    scorer=GraspScorer,
    truth="grasps",
    read=read_grasps,
    write=write_grasps,
    panels=_panels,
    words=_words,
    formats={"csv": _csv, "overlay": _overlay, "maps": _maps, "json": _json},
    usual=("csv", "overlay"),
    raw="maps",
    maps=4,
    reads_depth=True,
)
