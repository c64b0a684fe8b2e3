"""Dense regression as a task (see `deploy.tasks.task`), scored by the RMSE."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deploy.bundle.manifest import ClassInfo
from deploy.evaluation.metric import Metric
from deploy.evaluation.receipt import Budget
from deploy.files.images import write_png
from deploy.tasks.regression.labeled import TRUTH, read_maps, write_map, write_maps
from deploy.tasks.regression.metrics import RegressionScorer
from deploy.tasks.regression.model import RegressionModel, RegressionResult
from deploy.tasks.task import Predicted, Task
from deploy.visualize import overlay, render

RMSE = Metric("RMSE", "neg_rmse", "×10⁻³", factor=-1000.0, relative=True)
"""Shown in thousandths of the map's unit, such as millimeters for meters."""


def _heat(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values H×W as gray uint8 H×W×3 from `low` (black) to `high` (white); unknown values are black."""
    scaled = (values.astype(np.float64) - low) / ((high - low) or 1.0)  # a constant truth has no range
    gray = (255 * np.nan_to_num(scaled).clip(0, 1)).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=2)


def _panels(
    image: np.ndarray, truth: np.ndarray, results: Sequence[RegressionResult], _: Sequence[ClassInfo]
) -> list[np.ndarray]:
    """The image and all maps; the range of the truth sets the gray scale of all."""
    known = truth[np.isfinite(truth)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    return [
        render(image),
        *(_heat(values, low, high) for values in (truth, *(one.values for one in results))),
    ]


def _words(result: RegressionResult, _: Sequence[ClassInfo]) -> str:
    known = result.values[result.valid]
    if not known.size:
        return "no data"
    return f"values {known.min():.4g} to {known.max():.4g}, mean {known.mean():.4g}"


def _values(one: Predicted) -> Path:
    path = one.path("_values.npy")
    write_map(path, one.result.values)
    return path


def _overlay(one: Predicted) -> Path:
    """An overlay of the levels."""
    path = one.path("_overlay.png")
    write_png(path, overlay(one.image, one.result.labels, one.classes, one.look.legend, one.look.opacity))
    return path


REGRESSION = Task(
    "regression",
    metric=RMSE,
    model=RegressionModel,
    scorer=RegressionScorer,
    truth=TRUTH,
    read=read_maps,
    write=write_maps,
    panels=_panels,
    words=_words,
    formats={"values": _values, "overlay": _overlay},
    usual=("values", "overlay"),
    raw="values",
    maps=1,
    int8_budget=Budget(max_drop=0.05, min_agreement=0.9),
)
