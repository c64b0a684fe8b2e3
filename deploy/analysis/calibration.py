"""Calibration of probabilities: reliability by confidence, and the temperature that corrects it.

After Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, arXiv:1706.04599.
"""

from dataclasses import dataclass

import numpy as np

from deploy.errors import UserError

BINS = 15
_UNIT = 2**24
"""Confidences are summed in integer units of 1/_UNIT, so that sums do not depend on the order of the images."""
_TINY = np.float32(np.finfo(np.float32).tiny)
LOWEST, HIGHEST = 0.05, 20.0
"""Range of temperatures that are searched."""
_GRID = 49
_GOLDEN = (5**0.5 - 1) / 2


class Reliability:
    """Counts of pixels, and of correct pixels, by confidence (the largest probability) in equal bins (i/B, (i+1)/B]."""

    def __init__(self, bins: int = BINS) -> None:
        self.bins = bins
        self.count = np.zeros(bins, np.int64)
        self.correct = np.zeros(bins, np.int64)
        self.confidence = np.zeros(bins, np.int64)
        """Sum of confidences in units of 2⁻²⁴."""

    def update(self, probabilities: np.ndarray, label: np.ndarray, valid: np.ndarray) -> None:
        """Count probabilities float32 K×H×W against labels H×W where `valid`, bool H×W."""
        self.add(probabilities[:, valid].T, label[valid])

    def add(self, probabilities: np.ndarray, label: np.ndarray) -> None:
        """Count probabilities float32 n×K against labels (n,)."""
        confidence = probabilities.max(axis=1)
        right = probabilities.argmax(axis=1) == label
        index = (np.ceil(confidence * self.bins).astype(np.int64) - 1).clip(0, self.bins - 1)
        units = np.rint(confidence.astype(np.float64) * _UNIT)
        self.count += np.bincount(index, minlength=self.bins)
        self.correct += np.bincount(index[right], minlength=self.bins)
        # Sums of integers in float64 are exact up to 2⁵³: 500 million pixels in one call.
        self.confidence += np.bincount(index, units, minlength=self.bins).astype(np.int64)

    def merge(self, other: "Reliability") -> None:
        """Add the counts of another instance.

        Raises:
            ValueError: the other instance has another number of bins.
        """
        if self.bins != other.bins:
            raise ValueError("reliability with different bins cannot be merged")
        self.count += other.count
        self.correct += other.correct
        self.confidence += other.confidence

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean confidence and share of correct pixels of each bin, float64 (B,); NaN where a bin is empty."""
        count = np.where(self.count > 0, self.count, np.nan)
        return self.confidence / _UNIT / count, self.correct / count

    def ece(self) -> float | None:
        """Expected calibration error: mean |accuracy − confidence| of bins, weighted by pixels; None without pixels."""
        total = int(self.count.sum())
        gaps = np.abs(self.correct - self.confidence / _UNIT)
        return float(gaps.sum() / total) if total else None


@dataclass(eq=False)
class LogitSample:
    """A uniform random sample of at most `capacity` pixels: those with the smallest random keys.

    Samples with different seeds can be merged into a sample of all their pixels.
    """

    classes: int
    capacity: int = 100_000
    seed: int = 0

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)
        self._keys = np.empty(0)
        self._logits = np.empty((0, self.classes), np.float32)
        self._labels = np.empty(0, np.int64)

    @property
    def logits(self) -> np.ndarray:
        """float32 n×K: log-probabilities, which equal the logits up to a constant for each pixel."""
        return self._logits

    @property
    def labels(self) -> np.ndarray:
        """int64 (n,)."""
        return self._labels

    def update(self, probabilities: np.ndarray, label: np.ndarray, valid: np.ndarray) -> None:
        """Sample also from the pixels of probabilities float32 K×H×W and labels H×W where `valid`, bool H×W."""
        where = np.flatnonzero(valid)
        keys = self._random.random(len(where))
        if len(self._keys) == self.capacity:
            promising = np.flatnonzero(keys < self._keys.max(initial=0))
            where, keys = where[promising], keys[promising]
        if len(keys) > self.capacity:
            promising = np.argpartition(keys, self.capacity)[: self.capacity]
            where, keys = where[promising], keys[promising]
        picked = probabilities.reshape(self.classes, -1)[:, where].T
        self._keep(keys, np.log(np.maximum(picked, _TINY)), label.reshape(-1)[where].astype(np.int64))

    def merge(self, other: "LogitSample") -> None:
        """Merge another sample, which has another seed and the same number of classes."""
        self._keep(other._keys, other._logits, other._labels)

    def _keep(self, keys: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> None:
        keys = np.concatenate([self._keys, keys])
        logits, labels = np.concatenate([self._logits, logits]), np.concatenate([self._labels, labels])
        if len(keys) > self.capacity:
            smallest = np.argpartition(keys, self.capacity)[: self.capacity]
            keys, logits, labels = keys[smallest], logits[smallest], labels[smallest]
        self._keys, self._logits, self._labels = keys, logits, labels


def nll(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood, in nats, of labels (n,) under softmax(logits n×K / temperature)."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(scaled).sum(axis=1))
    return float((log_sum - scaled[np.arange(len(labels)), labels]).mean())


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Find the temperature in 0.05..20 with the smallest `nll`.

    Searches a grid in log T, then uses golden-section search around its best point. The likelihood is concave in 1/T,
    so there is one optimum; a result at an end of the range means that it lies beyond (T = 0 is optimal for a model
    that is always correct).

    Args:
        logits: float32 n×K.
        labels: int64 (n,).

    Raises:
        UserError: there are no pixels.
    """
    if not len(labels):
        raise UserError("no valid pixel to fit a temperature on; check labels and ignore label")
    grid = np.linspace(np.log(LOWEST), np.log(HIGHEST), _GRID)
    best = int(np.argmin([nll(logits, labels, float(np.exp(point))) for point in grid]))
    if best in (0, _GRID - 1):
        return float((LOWEST, HIGHEST)[best > 0])
    return float(np.exp(_golden(logits, labels, float(grid[best - 1]), float(grid[best + 1]))))


def _golden(logits: np.ndarray, labels: np.ndarray, low: float, high: float) -> float:
    """Log T of the smallest `nll` in the interval from `low` to `high`, to within 1e-5."""

    def cost(point: float) -> float:
        return nll(logits, labels, float(np.exp(point)))

    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = cost(left), cost(right)
    while high - low > 1e-5:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = cost(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = cost(right)
    return (low + high) / 2


def rescaled(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities float32 K×… after dividing their logits by a further temperature."""
    scaled = np.log(np.maximum(probabilities, _TINY)) / np.float32(temperature)
    scaled -= scaled.max(axis=0)
    np.exp(scaled, out=scaled)
    scaled /= scaled.sum(axis=0)
    return scaled
