"""Scores of grasps by the rectangle metric, shared by training, export checks and the device.

A prediction is right if its rectangle has an IoU above 0.25 with a true one, and their angles differ by at most 30°
(Jiang et al., ICRA 2011; Lenz et al., arXiv:1301.3592). Scores are computed from integer counts, so they do not depend
on the order or the grouping of images.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from deploy.errors import UserError
from deploy.tasks.grasp.geometry import ANGLE, angle_between
from deploy.tasks.grasp.overlap import iou

MIN_IOU, MAX_ANGLE = 0.25, np.radians(30)
IOUS = (0.25, 0.30, 0.35, 0.40, 0.50)
ANGLES = (30.0, 20.0, 15.0, 10.0, 5.0)
"""Thresholds of the sweep; degrees."""
BINS = 100
"""Number of quality thresholds at which precision and recall are computed."""
_ROUNDING = 1e-9


class GraspScores(msgspec.Struct, frozen=True):
    """Scores over all images with a true grasp; fractions in 0..1."""

    images: int
    empty: int
    """Images without a true grasp; they count in no other score."""
    success: dict[int, float]
    """By k: fraction of images with a right prediction among the first k. No prediction is a failure."""
    sweep: tuple[tuple[float, ...], ...]
    """success@1 for each of `IOUS` (rows) and `ANGLES` (columns)."""
    precision: tuple[float, ...]
    """Fraction of the best predictions with a quality of at least i / BINS that are right; 1 if there is none."""
    recall: tuple[float, ...]
    """Fraction of images whose best prediction has at least that quality and is right; begins with success@1."""
    average_precision: float
    """Area under the step function of precision over recall."""


class GraspMetrics:
    """Counts right and wrong predictions, image by image; `scores()` computes scores from the counts.

    Args:
        counts: the values of k in success@k.
    """

    def __init__(self, counts: Sequence[int] = (1, 5)) -> None:
        self.ks = tuple(counts)
        self.images = np.zeros(2, np.int64)
        """Images with and without a true grasp."""
        self.hits = np.zeros(len(self.ks), np.int64)
        self.sweep = np.zeros((len(IOUS), len(ANGLES)), np.int64)
        self.by_quality = np.zeros((2, BINS + 1), np.int64)
        """Best predictions that are wrong (row 0) and right (row 1), by quality."""

    def update(self, grasps: np.ndarray, qualities: np.ndarray, truth: np.ndarray) -> None:
        """Count an image.

        Args:
            grasps: predictions N×5, the best first.
            qualities: of the predictions, N in 0..1.
            truth: true grasps M×5.
        """
        if len(truth) == 0:
            self.images[1] += 1
            return
        self.images[0] += 1
        if len(grasps) == 0:
            return
        overlaps, angles = compare(grasps[: max(self.ks)], truth)
        right = matches(overlaps, angles).any(axis=1)
        self.hits += [bool(right[:k].any()) for k in self.ks]
        for row, least in enumerate(IOUS):
            for column, most in enumerate(ANGLES):
                self.sweep[row, column] += matches(overlaps[:1], angles[:1], least, np.radians(most)).any()
        step = int(np.clip(np.floor(qualities[0] * BINS + _ROUNDING), 0, BINS))
        self.by_quality[int(right[0]), step] += 1

    def arrays(self) -> list[np.ndarray]:
        """The counts; add those of other processes to them, in place."""
        return [self.images, self.hits, self.sweep, self.by_quality]

    def merge(self, other: "GraspMetrics") -> None:
        """Add the counts of another instance, such as that of another process or shard."""
        if self.ks != other.ks:
            raise ValueError(f"metrics of success@{self.ks} and @{other.ks} cannot be merged")
        for mine, theirs in zip(self.arrays(), other.arrays(), strict=True):
            mine += theirs

    def scores(self) -> GraspScores:
        """The scores of all counted images.

        Raises:
            UserError: no image has a true grasp.
        """
        images = int(self.images[0])
        if images == 0:
            raise UserError("nothing to score: no image has a grasp in its truth; check the labels")
        wrong, right = self.by_quality[:, ::-1].cumsum(axis=1)[:, ::-1].astype(float)
        shown = wrong + right
        precision = np.divide(right, shown, out=np.ones_like(right), where=shown > 0)
        recall = right / images
        steps = -np.diff(recall, append=0.0)
        return GraspScores(
            images=images,
            empty=int(self.images[1]),
            success={k: float(hit / images) for k, hit in zip(self.ks, self.hits, strict=True)},
            sweep=tuple(tuple(row) for row in (self.sweep / images).tolist()),
            precision=tuple(precision.tolist()),
            recall=tuple(recall.tolist()),
            average_precision=float((steps * precision).sum()),
        )


def compare(grasps: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU in 0..1 and angle in [0, π/2] between each of N grasps and each of M true ones: both float64 N×M."""
    return iou(grasps, truth), angle_between(grasps[:, None, ANGLE], truth[None, :, ANGLE])


def matches(
    overlaps: np.ndarray, angles: np.ndarray, min_iou: float = MIN_IOU, max_angle: float = MAX_ANGLE
) -> Any:
    """Whether both criteria of the rectangle metric hold: bool, in the shape of the inputs."""
    return np.asarray((overlaps > min_iou) & (angles <= max_angle + _ROUNDING))


def success(grasps: Any, truth: Any, min_iou: float = MIN_IOU, max_angle: float = MAX_ANGLE) -> np.ndarray:
    """Whether each of N predictions matches any of M true grasps: bool N."""
    return matches(*compare(np.asarray(grasps), np.asarray(truth)), min_iou, max_angle).any(axis=1)
