"""Sizes of what the labels show, and about how well outputs of each stride could draw it.

*Components* are connected regions of a class (8 neighbors). *Widths* are twice the distance to the nearest pixel of
another class along the ridge of that distance, the medial axis (Blum, "A transformation for extracting new descriptors
of shape", 1967): each pixel of the ridge counts once, so quantiles are over the length of structures.

The *ceiling* of a stride s is the score of the labels averaged over cells of s/2 pixels, resized bilinearly and
arg-maxed. Half of s, because bilinear scores cross at any place between two cells, which averages over cells of s
cannot show. It is an estimate: score maps of stride s that were fitted to the labels themselves by cross-entropy came
within 0.1 of its mean IoU (`docs/resolution.md`), and no network sees the labels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from deploy.evaluation.segmentation_metrics import SegmentationMetrics
from deploy.inference.preprocess import resize_nearest
from distill.config import DataConfig
from distill.data.sample import IGNORE
from distill.data.splits import Reader

STRIDES = (4, 8, 16, 32)
"""Strides with a ceiling of their own; that of finer ones is 1."""
QUANTILES = (0.1, 0.5, 0.9)
MOST_MASKS = 200
MOST_WORK = 30_000_000
"""Pixels times classes in them, over all measured masks: about two seconds of one core."""

Quantiles = tuple[float, float, float]
"""The values at `QUANTILES`."""


@dataclass(frozen=True)
class ClassStructures:
    """The structures of one class at network scale."""

    name: str
    components: int
    area: Quantiles | None
    """Of components, in pixels; None if there are none."""
    width: Quantiles | None
    """Of structures, in pixels to half a pixel; over their length."""
    resized: float | None
    """IoU of the labels, resized to the network's size and back, with themselves; None if the class is absent."""


@dataclass(frozen=True)
class Ceiling:
    """About the best scores that outputs of a stride allow, against the labels at network scale."""

    stride: int
    miou: float
    boundary_f1: float
    iou: tuple[float | None, ...]
    """Per class; None if it is absent."""


@dataclass(frozen=True)
class Structures:
    """What labels show at network scale."""

    masks: int
    """Number of masks, or of windows of masks, that were measured."""
    classes: tuple[ClassStructures, ...]
    ceilings: tuple[Ceiling, ...]
    """For each of `STRIDES`."""

    def ceiling(self, stride: float) -> Ceiling | None:
        """The ceiling of a stride, or of the next finer one in `STRIDES`; None if the stride is finer than all."""
        found = [it for it in self.ceilings if it.stride <= stride]
        return found[-1] if found else None


def measure_structures(reader: Reader, classes: Sequence[str], config: DataConfig) -> Structures | None:
    """Measure the structures of labels at the size at which a network sees them.

    Masks are drawn at random, always the same ones, until there are `MOST_MASKS` or the work exceeds `MOST_WORK`.

    Args:
        reader: samples of segmentation.
        classes: names of the classes.
        config: size of the network, and whether images are resized to it or tiled.

    Returns:
        None if no measured mask has a valid pixel.
    """
    counter, work = StructureCounter(classes), 0
    for label, resized in _maps(reader, config):
        counter.update(label, resized)
        work += label.size * len(np.unique(label))
        if counter.masks >= MOST_MASKS or work > MOST_WORK:
            break
    return counter.result()


class StructureCounter:
    """Measures masks one by one.

    Args:
        classes: names of the classes.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.names, self.masks = tuple(classes), 0
        self._areas: list[list[int]] = [[] for _ in classes]
        self._widths = [np.zeros(0, np.int64) for _ in classes]
        self._metrics = {stride: SegmentationMetrics(len(classes)) for stride in STRIDES}
        self._overlap = np.zeros((2, len(classes)), np.int64)

    def update(self, label: np.ndarray, resized: tuple[np.ndarray, np.ndarray] | None = None) -> None:
        """Measure one mask; one without a valid pixel is left out.

        Args:
            label: class ids H×W at network scale, 255 = invalid.
            resized: the mask at its own size, and `label` resized back to it; None if it has that size.
        """
        present = [int(value) for value in np.unique(label) if value != IGNORE]
        if not present:
            return
        self.masks += 1
        for value in present:
            mask = (label == value).astype(np.uint8)
            self._areas[value] += component_areas(mask).tolist()
            self._widths[value] = _added(self._widths[value], np.rint(2 * widths(mask)).astype(np.int64))
        for stride, metrics in self._metrics.items():
            metrics.update(drawn_at(label, stride), label)
        self._count_overlap(*(resized or (label, label)))

    def result(self) -> Structures | None:
        """What was found; None without a valid pixel."""
        if not self.masks:
            return None
        both, either = self._overlap.tolist()
        kept = [hits / total if total else None for hits, total in zip(both, either, strict=True)]
        found = zip(self.names, self._areas, self._widths, kept, strict=True)
        classes = tuple(
            ClassStructures(name, len(areas), _quantiles(areas), _quantiles_of_counts(counts), share)
            for name, areas, counts, share in found
        )
        scores = {stride: metrics.scores() for stride, metrics in self._metrics.items()}
        return Structures(
            self.masks,
            classes,
            tuple(Ceiling(stride, it.miou, it.boundary_f1, it.iou) for stride, it in scores.items()),
        )

    def _count_overlap(self, label: np.ndarray, restored: np.ndarray) -> None:
        """Count the pixels of each class in both maps, and in either, where both are valid."""
        valid = (label != IGNORE) & (restored != IGNORE)
        label, restored = label[valid], restored[valid]
        count = len(self.names)
        both = np.bincount(label[label == restored], minlength=count)
        self._overlap[0] += both
        self._overlap[1] += np.bincount(label, minlength=count)
        self._overlap[1] += np.bincount(restored, minlength=count) - both


def component_areas(mask: np.ndarray) -> np.ndarray:
    """The pixels of each connected region (8 neighbors) of a uint8 mask H×W of 0 and 1."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    return stats[1:, cv2.CC_STAT_AREA]


def widths(mask: np.ndarray) -> np.ndarray:
    """The width of structures at each pixel of their ridges, in pixels, exact to half a pixel.

    A pixel is on a ridge if none of its 8 neighbors is farther from the mask's complement. What lies outside the image
    belongs to the complement.

    Args:
        mask: uint8 H×W of 0 and 1.

    Returns:
        float32, one value a pixel of a ridge; a line of w pixels has 2 ⌈w/2⌉ - 1/2.
    """
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    ridge = (distance > 0) & (distance >= cv2.dilate(distance, np.ones((3, 3), np.uint8)))
    return 2 * distance[ridge] - 0.5


def drawn_at(label: np.ndarray, stride: int) -> np.ndarray:
    """The labels as the best score map of a stride would draw them, about: see the module.

    Args:
        label: class ids H×W, 255 = invalid.
        stride: of the score map, 2 or more.

    Returns:
        Class ids H×W, of the dtype of `label`.
    """
    (height, width), cell = label.shape, stride / 2
    cells = max(1, round(width / cell)), max(1, round(height / cell))
    known = cv2.resize((label != IGNORE).astype(np.float32), cells, interpolation=cv2.INTER_AREA)
    weight = 1 / np.maximum(known, 1e-6)
    best, drawn = np.full(label.shape, -1, np.float32), np.full(label.shape, IGNORE, label.dtype)
    for value in np.unique(label[label != IGNORE]):
        share = cv2.resize((label == value).astype(np.float32), cells, interpolation=cv2.INTER_AREA)
        score = cv2.resize(share * weight, (width, height), interpolation=cv2.INTER_LINEAR)
        better = score > best
        best[better], drawn[better] = score[better], value
    return drawn


def _maps(
    reader: Reader, config: DataConfig
) -> Iterator[tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]]:
    """Labels at network scale, in random order; with each, itself at its own size and resized back."""
    rng, (tall, wide) = np.random.default_rng(0), config.size
    for index in rng.permutation(len(reader)).tolist():
        label = reader[index].label.numpy().astype(np.uint8)
        if config.resize == "stretch":
            small = resize_nearest(label, tall, wide)
            yield small, (label, resize_nearest(small, *label.shape))
            continue
        corners = [
            (top, left) for top in range(0, label.shape[0], tall) for left in range(0, label.shape[1], wide)
        ]
        most = -(-MOST_MASKS // len(reader))
        for top, left in rng.permutation(corners)[:most].tolist():
            yield label[top : top + tall, left : left + wide], None


def _added(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Counts of whole numbers by value, with further numbers."""
    total = np.bincount(values, minlength=len(counts))
    total[: len(counts)] += counts
    return total


def _quantiles(values: Sequence[int]) -> Quantiles | None:
    if not values:
        return None
    low, middle, high = np.quantile(values, QUANTILES, method="inverted_cdf").tolist()
    return low, middle, high


def _quantiles_of_counts(counts: np.ndarray) -> Quantiles | None:
    """Quantiles of half pixels, from how often each occurs."""
    if not counts.any():
        return None
    shares = np.cumsum(counts) / counts.sum()
    low, middle, high = (np.searchsorted(shares, QUANTILES) / 2).tolist()
    return low, middle, high
