"""The result of a bundle on one set of labeled images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deploy.analysis.by_class import ClassScores, class_scores
from deploy.bundle.manifest import ClassInfo
from deploy.evaluation.per_image import Evaluation
from deploy.tasks.task import Task
from distill.evaluate.sources import Source


@dataclass(frozen=True, eq=False)
class Result:
    """What was evaluated, and how well it did."""

    source: Source
    task: Task
    classes: Sequence[ClassInfo]
    found: Evaluation

    @property
    def confusion(self) -> np.ndarray | None:
        """int64 K×(K+1): a row for each label, a column for each prediction; None if labels are not classes."""
        return None if self.task.confusion is None else self.task.confusion(self.found.total)

    def by_class(self) -> list[ClassScores]:
        """Scores of each class over all images; none if labels are not classes."""
        names = [one.name for one in self.classes]
        return [] if self.confusion is None else class_scores(names, self.confusion)

    def record(self) -> dict[str, object]:
        """The result for JSON; scores are those of the metric, fractions in 0..1 or the negative of an error."""
        total, confusion = self.found.total, self.confusion
        names = [one.name for one in self.classes]
        return {
            "data": self.source.name,
            "split": self.source.split,
            "images": len(self.found.images),
            "metric": self.task.metric.key,
            "score": total.score(),
            "details": total.details(),
            "per_image": {one.name: one.score for one in self.found.images},
            "worst_first": [self.found.images[index].name for index in self.found.worst_first()],
        } | ({} if confusion is None else {"classes": names, "confusion": confusion.tolist()})
