"""Post-training quantization within a budget: which calibrator, and which layers have to stay in float."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from msgspec.structs import replace

from deploy.errors import GateFailed, UserError
from deploy.evaluation.metric import MIOU, Metric
from deploy.evaluation.receipt import Budget
from deploy.quantize.bench import Attempt, Bench, Evaluate
from deploy.quantize.calibrators import CALIBRATORS, Histogram
from deploy.quantize.qdq import Layer, cpu_form, insert, layers
from deploy.quantize.ranges import CalibrationSet, collect
from deploy.quantize.report import Report, Sensitivity, sensitivity_table

MIN_IMAGES = 8
ENOUGH_IMAGES = 32

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
    keep_float: Collection[str] = (),
    max_float: float = 0.5,
    learned: Mapping[str, float] | None = None,
    metric: Metric = MIOU,
    say: Say = print,
) -> Quantized:
    """Quantize an fp32 model such that it stays within the budget.

    Every calibrator is tried with all layers in INT8, and the best is kept. If it is over the budget, the layers are
    ranked by what each gains alone in float, and a head of the ranking stays in float: `_mixed`, a greedy search.

    Args:
        calibration: images to take the ranges from; see `deploy.quantize.ranges.collect`.
        evaluate: measures a model with the inputs and outputs of `model` on labeled images that took no part in
            calibration. One in CPU form that meets the budget has to meet it in the form for TensorRT, too: the two
            differ where values are clipped.
        budget: largest loss of the score against `model`, and smallest agreement with it.
        calibrators: names in `CALIBRATORS` to choose from.
        granularity: "layer", or "block" to rank and keep the layers of a block together, which is faster.
        sensitivity: rank in any case.
        keep_float: layers and blocks that stay in float whatever they gain, or "first" and "last".
        max_float: largest share of layers in float beside these. More would leave little of INT8's speed.
        learned: ranges that training in simulated INT8 found, tried as one more calibrator; where they lack a tensor,
            that of the first of `calibrators` is taken.
        metric: the score that `evaluate` returns.
        say: takes a line of progress, or the ranking as a table.

    Raises:
        UserError: a model that is damaged, not in fp32 or without convolutions; fewer than 8 calibration images with a
            valid pixel; an unknown calibrator, granularity or layer.
        GateFailed: no model with so few layers in float meets the budget.
    """
    found = _checked_layers(model, calibrators, granularity)
    kept = _named(keep_float, found)
    histograms = _calibrated(model, found, calibration, say)
    bench = Bench(model, evaluate, budget, evaluate(model), metric, kept)
    attempts = _attempts(bench, histograms, calibrators, learned, say)
    images = next(iter(histograms.values())).images
    report, result = _report(bench, attempts, images, len(found))
    if not sensitivity and result.passed:
        return Quantized(result.int8, result.int8_cpu, report)
    units = _units([layer for layer in found if layer.name not in kept], granularity)
    return _ranked(bench, report, result, units, int(max_float * len(found)), say)


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


def _named(wanted: Collection[str], found: Sequence[Layer]) -> tuple[str, ...]:
    """The names of the layers that are wanted by their own name, that of their block, or as "first" or "last"."""
    known = {"first": (found[0].name,), "last": (found[-1].name,)}
    known |= _units(found, "block") | _units(found, "layer")
    for name in wanted:
        if name not in known:
            close = get_close_matches(name, known, n=3, cutoff=0.4) or list(known)[:4]
            raise UserError(f"float: no layer is called {name!r}; close are {', '.join(close)}")
    chosen = {layer for name in wanted for layer in known[name]}
    if len(chosen) == len(found):
        raise UserError("float: leaves no layer to quantize; name fewer")
    return tuple(layer.name for layer in found if layer.name in chosen)


def _attempts(
    bench: Bench,
    histograms: Mapping[str, Histogram],
    calibrators: Sequence[str],
    learned: Mapping[str, float] | None,
    say: Say,
) -> dict[str, Attempt]:
    """By calibrator, every layer in INT8."""
    candidates = {name: _ranges(histograms, name) for name in calibrators}
    if learned is not None:
        candidates["learned"] = candidates[calibrators[0]] | dict(learned)
    attempts: dict[str, Attempt] = {}
    for name, ranges in candidates.items():
        attempts[name] = bench.attempt(ranges)
        say(f"int8, {name}: {bench.words(attempts[name].figures)}")
    return attempts


def _report(
    bench: Bench, attempts: Mapping[str, Attempt], images: int, layer_count: int
) -> tuple[Report, Attempt]:
    """The best of the attempts, and the record of it."""
    best = max(attempts, key=lambda name: attempts[name].rank)
    result = attempts[best]
    report = Report(
        metric=bench.metric.name,
        unit=bench.metric.unit,
        factor=bench.metric.factor,
        images=images,
        budget=bench.budget,
        fp32=bench.fp32,
        calibrators={name: attempt.cpu_figures for name, attempt in attempts.items()},
        calibrator=best,
        int8=result.figures,
        layers=layer_count,
        float_layers=result.kept,
        ranges=result.ranges,
    )
    return report, result


def _ranked(
    bench: Bench,
    report: Report,
    result: Attempt,
    units: Mapping[str, tuple[str, ...]],
    most: int,
    say: Say,
) -> Quantized:
    """Rank the units, say so before anything can fail, and leave some in float if that is needed."""
    unit = "layers" if all(len(names) == 1 for names in units.values()) else "blocks"
    say(f"int8, {report.calibrator}: measuring {len(units)} {unit}, each alone in float")
    report = replace(report, sensitivity=tuple(_ranking(bench, result, units)))
    say(sensitivity_table(report))
    if not result.passed:
        result = _mixed(bench, result, report.sensitivity, most)
        mixed = f"{len(result.kept)} of {report.layers} layers in float"
        say(f"int8, {report.calibrator}, {mixed}: {bench.words(result.figures)}")
        say(f"int8, in float: {', '.join(result.kept)}")
        report = replace(report, int8=result.figures, float_layers=result.kept)
    return Quantized(result.int8, result.int8_cpu, report)


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


def _ranking(bench: Bench, base: Attempt, units: Mapping[str, tuple[str, ...]]) -> list[Sensitivity]:
    """The units by how well the model does with each alone in float, the best first.

    That is by the score, and by agreement where `base` fails by that alone.
    """
    rows = [
        Sensitivity(
            name, kept, bench.evaluate(cpu_form(insert(bench.model, base.ranges, (*bench.always, *kept))))
        )
        for name, kept in units.items()
    ]
    score_holds = bench.fp32.score - base.figures.score <= bench.budget.max_drop
    order = ("agreement", "score") if score_holds and not base.passed else ("score", "agreement")
    return sorted(rows, key=lambda row: [getattr(row.figures, field) for field in order], reverse=True)


def _mixed(bench: Bench, base: Attempt, ranking: Sequence[Sensitivity], most: int) -> Attempt:
    """An attempt with few units of the ranking in float that meets the budget, `most` layers at the most.

    The length of the ranking's head is found by bisection: one unit fewer fails. Then each unit that turns out needless
    is dropped from it, those that gain least first:
    another set may be smaller.
    """

    def attempt(rows: Sequence[Sensitivity]) -> Attempt:
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


def _failure(bench: Bench, best: Attempt) -> str:
    drop = bench.metric.change(-bench.budget.max_drop)
    limits = f"{drop} and {100 * bench.budget.min_agreement:.3f} %"
    return (
        f"int8 with {len(best.kept)} layers left in float: {bench.words(best.figures)} is over the budget of {limits};"
        " give more calibration images, train on with quantization in the loop (QAT), or allow a larger budget"
    )
