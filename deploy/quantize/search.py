"""Post-training quantization within a budget: which calibrator, and which layers have to stay in float."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from deploy.errors import GateFailed, UserError
from deploy.quantize.calibrators import CALIBRATORS, Histogram
from deploy.quantize.qdq import Layer, cpu_form, insert, layers
from deploy.quantize.ranges import CalibrationSet, collect
from deploy.quantize.report import Figures, Report, Sensitivity
from deploy.verify import Budget

MIN_IMAGES = 8
ENOUGH_IMAGES = 32

Evaluate = Callable[[bytes], Figures]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Quantized:
    """An INT8 model in its two forms, and how it came to be."""

    int8: bytes
    """In signed bytes: for TensorRT."""
    int8_cpu: bytes
    """The same grids in unsigned bytes: for CPUs."""
    report: Report


def quantize(
    model: bytes,
    calibration: CalibrationSet,
    evaluate: Evaluate,
    budget: Budget,
    *,
    calibrators: Sequence[str] = tuple(CALIBRATORS),
    granularity: str = "layer",
    sensitivity: bool = False,
    max_float: float = 0.5,
    learned: Mapping[str, float] | None = None,
    say: Say = print,
) -> Quantized:
    """Quantize an fp32 model such that it stays within the budget, with as few layers in float as that takes.

    Every calibrator is tried with all layers in INT8, and the best is kept. If it is over the budget, each layer is
    left in float alone and ranked by what that gains; the shortest head of this ranking that meets the budget stays in
    float, less the layers that turn out not to matter. `sensitivity` asks for the ranking in any case.

    Args:
        calibration: images to take the ranges from; see `deploy.quantize.ranges.collect`.
        evaluate: measures a model on labelled images that took no part in calibration. The models have the inputs and
            outputs of `model`. Candidates come in CPU form; one that meets the budget also in the form for TensorRT, as
            the two differ where values are clipped, and has to meet it with the worse figures of the two.
        budget: largest loss of mIoU against `model`, and smallest agreement with it.
        calibrators: names in `CALIBRATORS` to choose from.
        granularity: "layer", or "block" to rank and keep the layers of a block together, which is faster.
        max_float: largest share of layers in float. More would leave little of INT8's speed.
        learned: ranges that training in simulated INT8 found, tried as one more calibrator; where they lack a tensor,
            that of the first of `calibrators` is taken.
        say: takes a line of progress.

    Raises:
        UserError: a model that is damaged, not in fp32 or without convolutions; fewer than 8 calibration images with a
            valid pixel; an unknown calibrator or granularity.
        GateFailed: no model with so few layers in float meets the budget.
    """
    found = _checked_layers(model, calibrators, granularity)
    histograms = _calibrated(model, found, calibration, say)
    bench = _Bench(model, evaluate, budget, evaluate(model))
    candidates = {name: _ranges(histograms, name) for name in calibrators}
    if learned is not None:
        candidates["learned"] = candidates[calibrators[0]] | dict(learned)
    attempts: dict[str, _Attempt] = {}
    for name, ranges in candidates.items():
        attempts[name] = bench.attempt(ranges)
        say(f"int8, {name}: {bench.words(attempts[name].figures)}")
    best = max(attempts, key=lambda name: attempts[name].rank)
    result, ranking = attempts[best], []
    if sensitivity or not result.passed:
        units = _units(found, granularity)
        say(f"int8, {best}: measuring {len(units)} {granularity}s, each alone in float")
        ranking = _ranking(bench, result, units)
    if not result.passed:
        result = _mixed(bench, result, ranking, int(max_float * len(found)))
        mixed = f"{len(result.kept)} of {len(found)} layers in float"
        say(f"int8, {best}, {mixed}: {bench.words(result.figures)}")
    report = Report(
        images=next(iter(histograms.values())).images,
        budget=budget,
        fp32=bench.fp32,
        calibrators={name: attempt.cpu_figures for name, attempt in attempts.items()},
        calibrator=best,
        int8=result.figures,
        layers=len(found),
        float_layers=result.kept,
        ranges=result.ranges,
        sensitivity=tuple(ranking),
    )
    return Quantized(result.int8, result.int8_cpu, report)


@dataclass(frozen=True)
class _Attempt:
    """A quantized model and its figures."""

    ranges: dict[str, float]
    int8: bytes
    int8_cpu: bytes
    kept: tuple[str, ...]
    """Layers in float."""
    cpu_figures: Figures
    figures: Figures
    """Those in CPU form, or the worse of both forms if these met the budget."""
    passed: bool

    @property
    def rank(self) -> tuple[bool, float, float]:
        """What makes one better than another.

        Within the budget, differences of mIoU are the luck of a few pixels, and what strays least from fp32 is best.
        """
        by_miou, by_agreement = self.figures.miou, self.figures.agreement
        return (True, by_agreement, by_miou) if self.passed else (False, by_miou, by_agreement)


@dataclass(frozen=True)
class _Bench:
    """Makes quantized models and measures them."""

    model: bytes
    evaluate: Evaluate
    budget: Budget
    fp32: Figures

    def attempt(self, ranges: dict[str, float], kept: Collection[str] = ()) -> _Attempt:
        int8 = insert(self.model, ranges, kept)
        int8_cpu = cpu_form(int8)
        figures = cpu_figures = self.evaluate(int8_cpu)
        if self.meets_budget(figures):
            signed = self.evaluate(int8)
            figures = Figures(min(figures.miou, signed.miou), min(figures.agreement, signed.agreement))
        return _Attempt(ranges, int8, int8_cpu, tuple(kept), cpu_figures, figures, self.meets_budget(figures))

    def meets_budget(self, figures: Figures) -> bool:
        drop = self.fp32.miou - figures.miou
        return drop <= self.budget.max_miou_drop and figures.agreement >= self.budget.min_agreement

    def words(self, figures: Figures) -> str:
        change = 100 * (figures.miou - self.fp32.miou)
        return f"mIoU {100 * figures.miou:.2f} % ({change:+.3f}), agreement {100 * figures.agreement:.3f} %"


def _checked_layers(model: bytes, calibrators: Sequence[str], granularity: str) -> list[Layer]:
    unknown = [name for name in calibrators if name not in CALIBRATORS]
    if unknown or not calibrators:
        raise UserError(f"calibrators: {', '.join(unknown) or 'none'}; choose from {', '.join(CALIBRATORS)}")
    if granularity not in ("layer", "block"):
        raise UserError(f"granularity: {granularity!r} is unknown; choose layer or block")
    found = layers(model)
    if not found:
        raise UserError("the model has no convolution with constant weights, so there is nothing to quantize")
    return found


def _calibrated(
    model: bytes, found: Sequence[Layer], calibration: CalibrationSet, say: Say
) -> dict[str, Histogram]:
    """The distributions of all tensors that get a grid."""
    histograms = collect(model, list(dict.fromkeys(t for layer in found for t in layer.tensors)), calibration)
    images = next(iter(histograms.values())).images
    if images < MIN_IMAGES:
        raise UserError(
            f"the calibration set has {images} images with a valid pixel; at least {MIN_IMAGES} are needed,"
            f" {ENOUGH_IMAGES} or more are better"
        )
    if images < ENOUGH_IMAGES:
        say(f"warning: only {images} calibration images; {ENOUGH_IMAGES} or more give safer ranges")
    return histograms


def _ranges(histograms: Mapping[str, Histogram], calibrator: str) -> dict[str, float]:
    return {tensor: CALIBRATORS[calibrator](histogram) for tensor, histogram in histograms.items()}


def _units(found: Sequence[Layer], granularity: str) -> dict[str, tuple[str, ...]]:
    """What is left in float together: the names of layers by the name of the unit."""
    units: dict[str, tuple[str, ...]] = {}
    for layer in found:
        unit = layer.block if granularity == "block" else layer.name
        units[unit] = (*units.get(unit, ()), layer.name)
    return units


def _ranking(bench: _Bench, base: _Attempt, units: Mapping[str, tuple[str, ...]]) -> list[Sensitivity]:
    """The units by how well the model does with each alone in float, the best first.

    That is by mIoU, and by agreement where `base` fails by that alone.
    """
    rows = [
        Sensitivity(name, kept, bench.evaluate(cpu_form(insert(bench.model, base.ranges, kept))))
        for name, kept in units.items()
    ]
    miou_holds = bench.fp32.miou - base.figures.miou <= bench.budget.max_miou_drop
    order = ("agreement", "miou") if miou_holds and not base.passed else ("miou", "agreement")
    return sorted(rows, key=lambda row: [getattr(row.figures, field) for field in order], reverse=True)


def _mixed(bench: _Bench, base: _Attempt, ranking: Sequence[Sensitivity], most: int) -> _Attempt:
    """The attempt with the fewest units of the ranking in float that meets the budget, `most` layers at the most.

    The length of the ranking's head is found by bisection: one unit fewer fails. Then each unit that turns out needless
    is dropped from it.
    """

    def attempt(rows: Sequence[Sensitivity]) -> _Attempt:
        return bench.attempt(base.ranges, [layer for row in rows for layer in row.layers])

    fails, meets = 0, len(ranking)
    while sum(len(row.layers) for row in ranking[:meets]) > most:
        meets -= 1
    best = attempt(ranking[:meets])
    if not best.passed:
        raise GateFailed(_failure(bench, best))
    while meets - fails > 1:
        middle = (fails + meets) // 2
        tried = attempt(ranking[:middle])
        if tried.passed:
            meets, best = middle, tried
        else:
            fails = middle
    needed = list(ranking[:meets])
    for row in ranking[: meets - 1][::-1]:
        tried = attempt([other for other in needed if other is not row])
        if tried.passed:
            needed.remove(row)
            best = tried
    return best


def _failure(bench: _Bench, best: _Attempt) -> str:
    limits = f"-{100 * bench.budget.max_miou_drop:.3f} and {100 * bench.budget.min_agreement:.3f} %"
    return (
        f"int8 with {len(best.kept)} layers left in float: {bench.words(best.figures)} is over the budget of {limits};"
        " give more calibration images, train on with quantization in the loop (QAT), or allow a larger budget"
    )
