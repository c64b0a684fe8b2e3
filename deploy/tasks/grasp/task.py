"""Grasp detection as a task (see `deploy.tasks.task`), scored by the success of the best grasp."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deploy.bundle.manifest import ClassInfo
from deploy.evaluation.metric import Metric
from deploy.files.atomic import atomic_write, write_json
from deploy.files.images import write_png
from deploy.tasks.grasp.draw import draw_grasps
from deploy.tasks.grasp.labeled import read_grasps, write_csv, write_grasps
from deploy.tasks.grasp.metrics import GraspMetrics
from deploy.tasks.grasp.model import COUNT, GraspModel, GraspResult, drawn
from deploy.tasks.task import Predicted, Task
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


def _panels(
    image: np.ndarray, truth: np.ndarray, results: Sequence[GraspResult], _: Sequence[ClassInfo]
) -> list[np.ndarray]:
    return [draw_grasps(render(image), truth), *(drawn(image, one) for one in results)]


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


def _csv(one: Predicted) -> Path:
    path = one.path("_grasps.csv")
    write_csv(path, np.asarray(one.result.grasps), np.asarray(one.result.qualities))
    return path


def _overlay(one: Predicted) -> Path:
    path = one.path("_overlay.png")
    write_png(path, drawn(one.image, one.result))
    return path


def _maps(one: Predicted) -> Path:
    path = one.path("_maps.npy")
    with atomic_write(path) as file:
        np.save(file, one.result.maps)
    return path


def _json(one: Predicted) -> Path:
    path = one.path(".json")
    write_json(path, {"grasps": one.result.rows(), "ms": round(one.result.timings.total_ms, 3)})
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
