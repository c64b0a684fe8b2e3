"""Grasp detection as a task (`deploy.tasks`): success of the best grasp instead of mIoU."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from deploy.grasp.labelled import read_grasps, write_grasps
from deploy.grasp.metrics import GraspMetrics
from deploy.grasp.runtime import COUNT, GraspModel
from deploy.tasks import Task


class GraspScorer:
    """Success of the best grasp by the rectangle metric (see `deploy.grasp.metrics`)."""

    def __init__(self, _: Sequence[str] = ()) -> None:
        self.metrics = GraspMetrics(counts=(1, COUNT))

    def update(self, result: Any, truth: np.ndarray, valid: np.ndarray) -> None:
        """Count the grasps of a result against those of the truth N×5."""
        del valid  # a hole hides no grasp
        self.metrics.update(result.grasps, result.qualities, truth)

    def counts(self) -> list[np.ndarray]:
        """Images by what became of them."""
        return self.metrics.arrays()

    def score(self) -> float:
        """success@1."""
        return self.metrics.scores().success[1]

    def details(self) -> dict[str, float | None]:
        """Success of any of the first few, and how often the best one was near in place or in angle alone."""
        scores = self.metrics.scores()
        return {f"success@{COUNT}": scores.success[COUNT]}


GRASP = Task(
    "grasp",
    metric="success@1",
    key="success",
    model=GraspModel,
    scorer=GraspScorer,
    truth="grasps",
    read=read_grasps,
    write=write_grasps,
)
