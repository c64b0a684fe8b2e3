"""The receipt: the accuracy of each hop from the trained network to the device, compared with a budget.

A hop is one form of the same model (torch, ONNX, INT8, an engine). All hops predict the same images one by one; each is
scored against the truth, and its labels are compared pixel by pixel with those of the previous hop and of the first.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np

from deploy.backends.engine import CPU
from deploy.errors import GateFailed, UserError
from deploy.evaluation.metric import MIOU, Metric, distinct
from deploy.heartbeat import counted
from deploy.table import format_table, int8_notes

Sample = tuple[str, np.ndarray, np.ndarray, np.ndarray]
"""Id, image H×W×C as input of a model, its truth (class ids H×W, grasps N×5, or values H×W), `valid` bool H×W."""


class Labeled(Protocol):
    """What `run_hops` needs of a model's result, in addition to what its scorer reads."""

    @property
    def labels(self) -> np.ndarray:
        """Label ids, uint8 H×W."""
        ...


class Scorer(Protocol):
    """Scores the results of one hop with integer counts; created by the task (`deploy.tasks.task`)."""

    def update(self, result: Any, truth: np.ndarray, valid: np.ndarray) -> None:
        """Count one image: a result of the task's model, and the truth and valid pixels of a `Sample`."""
        ...

    def score(self) -> float:
        """The score that is gated: a fraction in 0..1, or the negative of an error. Higher is better."""
        ...

    def counts(self) -> list[np.ndarray]:
        """The int64 arrays from which all scores are computed; add those of other processes to them, in place."""
        ...

    def details(self) -> dict[str, float | None]:
        """Further fractions by name, the most important first; None if there was nothing to score."""
        ...


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The accuracy that a hop may lose."""

    max_drop: float = 0.001
    """Largest drop of the score: 0.001 is 0.1 points of mIoU or of successful grasps, or 0.1 % of an error."""
    min_agreement: float = 0.999
    """Smallest fraction of valid pixels with the same label."""


INT8_BUDGET = Budget(max_drop=0.005, min_agreement=0.98)
"""Default budget of INT8 against the fp32 model."""


@dataclass(frozen=True)
class Hop:
    """One form of the model. `model` maps an image H×W×C to a result with labels of the same height and width."""

    name: str
    model: Callable[[np.ndarray], Labeled]
    bytes: int
    """Size of the model's file; 0 if it has none."""
    budget: Budget | None = None
    """Budget of this hop (a lossy hop such as INT8 needs one); default: that of the run."""
    source: str = ""
    """Name of the earlier hop that it was made from, and is compared with; default: the previous one."""


class HopReceipt(msgspec.Struct, frozen=True):
    """Measurements of one hop. Agreements are fractions in 0..1; the first hop agrees with itself and passes."""

    name: str
    score: float
    """Score in the metric of the receipt."""
    details: dict[str, float | None]
    """See `Scorer.details`."""
    agreement_previous: float
    agreement_first: float
    ms_per_image: float
    """Median over the images, including preprocessing and postprocessing."""
    bytes: int
    budget: Budget
    passed: bool
    reasons: tuple[str, ...]
    """Why the hop is over its budget, one line each; empty if it passed."""


class Receipt(msgspec.Struct, frozen=True):
    """All hops of one model on one data set; `msgspec.to_builtins(receipt)` is JSON."""

    dataset: str
    split: str
    images: int
    metric: str
    """Name of the score, such as "mIoU" or "success@1"."""
    hops: tuple[HopReceipt, ...]
    passed: bool
    failed: tuple[str, ...]
    """Names of the hops over their budget."""
    unit: str = "%"
    factor: float = 100.0
    """Factor from a score to the value shown in `unit`; see `Metric`."""

    @property
    def shown(self) -> Metric:
        """How to show the score."""
        return Metric(self.metric, "", self.unit, self.factor)

    @property
    def source(self) -> str:
        """The data set and split in words."""
        return " ".join(filter(None, (self.dataset, self.split))) or "unnamed data"


class _Tally:
    """Running counts of one hop."""

    def __init__(self, scorer: Scorer):
        self.scorer = scorer
        self.milliseconds: list[float] = []
        self.same_as_previous = self.same_as_first = 0


def run_hops(
    hops: Sequence[Hop],
    samples: Iterable[Sample],
    new_scorer: Callable[[], Scorer],
    budget: Budget | None = None,
    *,
    metric: Metric = MIOU,
    dataset: str = "",
    split: str = "",
) -> Receipt:
    """Run every hop on every sample and compare them.

    A hop is gated against the hop that it was made from, usually the previous one, by its own budget. It is also gated
    against the first hop, by the loosest budget so far, so that small drops cannot accumulate; but not after a failed
    hop, whose drop it would repeat.

    Args:
        hops: the forms of the model, in the order of conversion.
        samples: iterated once, so memory does not grow with their number.
        new_scorer: creates the scorer of a hop.
        budget: for hops without their own; default: `Budget()`.
        metric: of the scorers' score.
        dataset: name of the data set, for the receipt.
        split: name of its split, for the receipt.

    Raises:
        UserError: there is no sample or no valid pixel, or a hop fails on a sample (the message names both).
    """
    tallies = [_Tally(new_scorer()) for _ in hops]
    images = pixels = 0
    for sample in counted(samples):
        _run_sample(hops, tallies, sample)
        images += 1
        pixels += int(np.count_nonzero(sample[3]))
    if not images:
        raise UserError("nothing to verify: the data set or split has no images; check its folder")
    if not pixels:
        raise UserError(
            "nothing to verify: no pixel of any image is valid; check the images' no-data and labels"
        )

    receipts: list[HopReceipt] = []
    for hop, tally in zip(hops, tallies, strict=True):
        receipt = _measured(hop, tally, pixels, hop.budget or budget or Budget())
        reasons = _reasons(receipts, receipt, hop.source, metric)
        receipts.append(msgspec.structs.replace(receipt, passed=not reasons, reasons=reasons))
    failed = tuple(receipt.name for receipt in receipts if not receipt.passed)
    return Receipt(
        dataset, split, images, metric.name, tuple(receipts), not failed, failed, metric.unit, metric.factor
    )


def table(receipt: Receipt, not_run: Sequence[tuple[str, int]] = ()) -> str:
    """Format a receipt as an aligned text table, followed by the reasons for each hop that failed.

    Args:
        receipt: the receipt.
        not_run: names and bytes of further forms of the model that this machine cannot run.
    """
    detail = next(iter(receipt.hops[0].details), "–")
    columns = ("agreement %", "vs first %", f"{detail} %", "ms/image", "MB", "verdict")
    header = ("hop", receipt.shown.header, *columns)
    rows = [
        (
            hop.name,
            receipt.shown.text(hop.score),
            f"{100 * hop.agreement_previous:.3f}",
            f"{100 * hop.agreement_first:.3f}",
            "–" if (value := hop.details.get(detail)) is None else f"{100 * value:.2f}",
            f"{hop.ms_per_image:.1f}",
            f"{hop.bytes / 1e6:.1f}",
            "passed" if hop.passed else "FAILED",
        )
        for hop in receipt.hops
    ]
    rows += [(name, *"–––––", f"{size / 1e6:.1f}", "not run here") for name, size in not_run]
    reasons = [reason for hop in receipt.hops for reason in hop.reasons]
    title, notes = f"{receipt.source}, {receipt.images} images", int8_notes(_of_cpu(receipt))
    return "\n".join([title, format_table(header, rows), *notes, *reasons])


def _of_cpu(receipt: Receipt) -> dict[tuple[str, str], float]:
    """Milliseconds of fp32 in ONNX Runtime and of INT8 there; of other INT8, too, where no INT8 is faster than it."""
    hops = {hop.name: hop.ms_per_image for hop in receipt.hops}
    ours, fp32 = ("int8 cpu", f"{CPU[0]} int8"), hops.get("onnx", 0.0)
    int8 = [name for name in (*ours, *(f"{other} int8" for other in CPU[1:])) if fp32 and name in hops]
    if any(hops[name] <= fp32 for name in int8):
        int8 = [name for name in int8 if name in ours]
    return {(name, "int8"): hops[name] for name in int8} | {(name, "fp32"): hops["onnx"] for name in int8}


def require_passed(receipt: Receipt) -> None:
    """Check that all hops met their budgets.

    Raises:
        GateFailed: with the hops over budget and their figures, in one line.
    """
    if not receipt.passed:
        raise GateFailed("; ".join(reason for hop in receipt.hops for reason in hop.reasons))


def _run_sample(hops: Sequence[Hop], tallies: Sequence[_Tally], sample: Sample) -> None:
    """Run all hops on one sample, and count the results in their tallies."""
    name, image, truth, valid = sample
    seen: dict[str, np.ndarray] = {}
    for hop, tally in zip(hops, tallies, strict=True):
        try:
            start = time.perf_counter()
            result = hop.model(image)
            tally.milliseconds.append(1e3 * (time.perf_counter() - start))
            tally.scorer.update(result, truth, valid)
        except UserError as error:
            raise UserError(f"hop {hop.name}, sample {name}: {error}") from None
        labels = result.labels
        earlier = list(seen.values()) or [labels]
        source = seen[hop.source] if hop.source else earlier[-1]
        tally.same_as_previous += int(np.count_nonzero((labels == source) & valid))
        tally.same_as_first += int(np.count_nonzero((labels == earlier[0]) & valid))
        seen[hop.name] = labels


def _measured(hop: Hop, tally: _Tally, pixels: int, budget: Budget) -> HopReceipt:
    """The measurements of a hop, not yet gated."""
    return HopReceipt(
        name=hop.name,
        score=tally.scorer.score(),
        details=tally.scorer.details(),
        agreement_previous=tally.same_as_previous / pixels,
        agreement_first=tally.same_as_first / pixels,
        ms_per_image=statistics.median(tally.milliseconds),
        bytes=hop.bytes,
        budget=budget,
        passed=True,
        reasons=(),
    )


def _reasons(before: Sequence[HopReceipt], hop: HopReceipt, source: str, metric: Metric) -> tuple[str, ...]:
    """Why the hop is over budget, given the gated hops before it; empty if it passes."""
    if not before:
        return ()
    reference = next((one for one in before if one.name == source), before[-1])
    reasons = _over_budget(reference, hop, hop.agreement_previous, hop.budget, metric)
    if reasons or not all(earlier.passed for earlier in before):
        return reasons
    budgets = [receipt.budget for receipt in (*before[1:], hop)]
    loosest = Budget(max(b.max_drop for b in budgets), min(b.min_agreement for b in budgets))
    return _over_budget(before[0], hop, hop.agreement_first, loosest, metric)


def _over_budget(
    reference: HopReceipt, hop: HopReceipt, agreement: float, budget: Budget, metric: Metric
) -> tuple[str, ...]:
    """One line for each limit that the hop violates relative to the reference."""
    hops = f"hop {reference.name} → {hop.name}"
    drop = metric.drop(reference.score, hop.score)
    reasons = []
    if agreement < budget.min_agreement:
        share, limit = distinct(100 * agreement, 100 * budget.min_agreement)
        reasons.append(f"{hops}: label agreement {share} % is below the budget of {limit} %")
    if drop > budget.max_drop:
        reasons.append(f"{hops}: {metric.over(drop, budget.max_drop)}")
    return tuple(reasons)
