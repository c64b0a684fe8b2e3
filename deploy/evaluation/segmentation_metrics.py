"""Segmentation metrics, shared by training, export checks and the device.

Scores are computed from integer counts, so they do not depend on the order or the grouping of images.
"""

import math

import msgspec
import numpy as np

from deploy.errors import UserError


class Scores(msgspec.Struct, frozen=True):
    """Scores over all counted images, fractions in 0..1. Tuples hold one value per class.

    The value of a class that is neither in labels nor in predictions is None, and does not count in a mean.
    """

    miou: float
    """Mean of `iou`."""
    iou: tuple[float | None, ...]
    """Intersection over union."""
    pixel_accuracy: float
    """Fraction of valid pixels with the right class."""
    precision: tuple[float | None, ...]
    """Fraction of the pixels predicted as the class that are labeled so; 0 if the class is never predicted."""
    recall: tuple[float | None, ...]
    """Fraction of the pixels labeled as the class that are predicted so; 0 if there are none."""
    f1: tuple[float | None, ...]
    """Harmonic mean of precision and recall (the Dice coefficient)."""
    boundary_f1: float
    """Mean boundary F1 of the classes with a boundary; 1 if there is no boundary in any label or prediction."""


class SegmentationMetrics:
    """Counts pixels and boundary pixels of predictions and labels; `scores()` computes scores from the counts.

    Args:
        num_classes: number of classes, K.
        boundary_tolerance: distance up to which boundary pixels match, as a fraction of the image's diagonal, rounded
            up to whole pixels.
        ignore_label: id of pixels without a label; predicted, it is no class.

    Attributes:
        confusion: int64 K×(K+1): rows are labels, columns predictions; the last column counts pixels predicted as no
            class.
        boundary: int64 K×4: predicted boundary pixels, those of them near a labeled one, labeled boundary pixels, and
            those of them near a predicted one. After Csurka et al., "What is a good evaluation measure for semantic
            segmentation?", BMVC 2013, but summed over images, so that a short boundary has a small weight; they average
            the F1 of each image. The F measure of DAVIS (Perazzi et al., CVPR 2016) is another: of one object's
            contour, one pixel wide, at 0.8 % of the diagonal, averaged over frames.
    """

    def __init__(self, num_classes: int, boundary_tolerance: float = 0.0075, ignore_label: int = 255):
        self.num_classes = num_classes
        self.boundary_tolerance = boundary_tolerance
        self.ignore_label = ignore_label
        self.confusion = np.zeros((num_classes, num_classes + 1), np.int64)
        self.boundary = np.zeros((num_classes, 4), np.int64)

    def update(self, prediction: np.ndarray, label: np.ndarray, valid: np.ndarray | None = None) -> None:
        """Count the valid pixels of one image or several.

        Args:
            prediction: class ids H×W or N×H×W; the ignore label is wrong, and a miss for the labeled class.
            label: class ids, shaped as `prediction`.
            valid: bool, shaped as `prediction`; default: where the label is not the ignore label.

        Raises:
            UserError: shapes differ, or a valid pixel has another id outside 0..K-1.
        """
        valid = np.not_equal(label, self.ignore_label) if valid is None else valid.astype(bool, copy=False)
        if not prediction.shape == label.shape == valid.shape:
            shapes = f"prediction {prediction.shape}, label {label.shape}, valid {valid.shape}"
            raise UserError(f"sizes differ: {shapes}; the label must have the height and width of its image")
        if label.ndim == 3:
            for one in zip(prediction, label, valid, strict=True):
                self.update(*one)
            return
        if not valid.any():
            return
        label = self._checked("label", label, valid)
        prediction = self._checked("predicted", prediction, valid & (prediction != self.ignore_label))
        self._count_pixels(prediction[valid], label[valid])
        self._count_boundary(prediction, label, valid)

    def merge(self, other: "SegmentationMetrics") -> None:
        """Add the counts of another instance, such as that of another process or shard."""
        if (self.num_classes, self.boundary_tolerance) != (other.num_classes, other.boundary_tolerance):
            raise ValueError("metrics with different classes or boundary tolerance cannot be merged")
        self.confusion += other.confusion
        self.boundary += other.boundary

    def scores(self) -> Scores:
        """The scores of all counted images.

        Raises:
            UserError: no image has a valid pixel.
        """
        if not self.confusion.any():
            raise UserError("nothing to score: no image has a valid pixel; check labels and ignore label")
        hits = np.diagonal(self.confusion)
        labeled = self.confusion.sum(axis=1)
        predicted = self.confusion[:, : self.num_classes].sum(axis=0)
        union = labeled + predicted - hits
        present = union > 0
        iou = _ratios(hits, union, present)
        return Scores(
            miou=_mean(iou),
            iou=iou,
            pixel_accuracy=float(hits.sum() / labeled.sum()),
            precision=_ratios(hits, predicted, present),
            recall=_ratios(hits, labeled, present),
            f1=_ratios(2 * hits, labeled + predicted, present),
            boundary_f1=_boundary_f1(self.boundary),
        )

    def _checked(self, what: str, ids: np.ndarray, counted: np.ndarray) -> np.ndarray:
        """The ids as int64, K ("no class") where not counted; raises `UserError` if a counted one is not a class."""
        wrong = ids[counted & ((ids < 0) | (ids >= self.num_classes))]
        if wrong.size:
            raise UserError(
                f"{what} id {wrong[0]} is out of range: there are {self.num_classes} classes "
                f"(ids 0..{self.num_classes - 1}); list the missing class or mark its pixels as void"
            )
        return np.where(counted, ids, self.num_classes).astype(np.int64)

    def _count_pixels(self, prediction: np.ndarray, label: np.ndarray) -> None:
        pair = label * (self.num_classes + 1) + prediction
        self.confusion += np.bincount(pair, minlength=self.confusion.size).reshape(self.confusion.shape)

    def _bit_of_class(self, first: int) -> np.ndarray:
        """Unsigned bit by id: 1 for class `first`, 2 for the next, …, for up to 64 classes; 0 for others and for K."""
        count = min(64, self.num_classes - first)
        bits = np.zeros(self.num_classes + 1, np.min_scalar_type(2**count - 1))
        bits[first : first + count] = [1 << position for position in range(count)]
        return bits

    def _count_boundary(self, prediction: np.ndarray, label: np.ndarray, valid: np.ndarray) -> None:
        tolerance = math.ceil(self.boundary_tolerance * math.hypot(*label.shape))
        on_predicted, on_labeled = _boundary(prediction, valid), _boundary(label, valid)
        for first in range(0, self.num_classes, 64):
            bit = self._bit_of_class(first)
            predicted = np.where(on_predicted, bit[prediction], 0)
            labeled = np.where(on_labeled, bit[label], 0)
            predicted_near = predicted & _dilate(labeled, tolerance)
            labeled_near = labeled & _dilate(predicted, tolerance)
            ids_of_columns = (prediction, prediction, label, label)
            bits_of_columns = (predicted, predicted_near, labeled, labeled_near)
            for column, (ids, bits) in enumerate(zip(ids_of_columns, bits_of_columns, strict=True)):
                self.boundary[:, column] += np.bincount(ids[bits > 0], minlength=self.num_classes)


def _boundary(ids: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Bool H×W: valid pixels that have a valid pixel of another class among their 4 neighbors.

    Neither the image border nor the edge of an invalid region is a boundary.
    """
    boundary = np.zeros(ids.shape, bool)
    for ids_view, valid_view, boundary_view in ((ids, valid, boundary), (ids.T, valid.T, boundary.T)):
        step = (ids_view[1:] != ids_view[:-1]) & valid_view[1:] & valid_view[:-1]
        boundary_view[1:] |= step
        boundary_view[:-1] |= step
    return boundary


def _dilate(bits: np.ndarray, radius: int) -> np.ndarray:
    """OR the bits of all pixels within `radius` (Euclidean) of each pixel: one pass for all classes.

    A disc is a stack of horizontal runs, widest in the middle; two shifts widen a run.
    """
    disc = np.zeros_like(bits)
    run, reach = bits.copy(), 0
    for dy in range(radius, -1, -1):
        while reach < math.isqrt(radius**2 - dy**2):
            reach += 1
            _or_shifted(run.T, bits.T, reach)
        _or_shifted(disc, run, dy)
    return disc


def _or_shifted(target: np.ndarray, source: np.ndarray, shift: int) -> None:
    """OR the source, shifted down and up by `shift` rows, into the target."""
    kept = max(0, len(source) - shift)
    target[len(source) - kept :] |= source[:kept]
    target[:kept] |= source[len(source) - kept :]


def _ratios(part: np.ndarray, whole: np.ndarray, present: np.ndarray) -> tuple[float | None, ...]:
    """part / whole for each class: 0 if the whole is empty, None if the class is not present."""
    fractions = part / np.maximum(whole, 1)
    return tuple(float(value) if here else None for value, here in zip(fractions, present, strict=True))


def _mean(values: tuple[float | None, ...]) -> float:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known)


def _boundary_f1(boundary: np.ndarray) -> float:
    predicted, predicted_near, labeled, labeled_near = boundary[(boundary > 0).any(axis=1)].T
    if not predicted.size:
        return 1.0
    precision, recall = predicted_near / np.maximum(predicted, 1), labeled_near / np.maximum(labeled, 1)
    return float(np.mean(2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)))
