"""Post-training quantization within a budget: choose the calibrator, and the layers that stay in float."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from msgspec.structs import replace

from deploy.errors import GateFailed, UserError
from deploy.evaluation.metric import MIOU, Metric
from deploy.heartbeat import counted
from deploy.quantize.bench import Attempt, Bench, Evaluate
from deploy.quantize.calibrators import CALIBRATORS, Histogram
from deploy.quantize.formats import FORMATS, INT8
from deploy.quantize.limits import ENOUGH_CALIBRATION_IMAGES, MIN_CALIBRATION_IMAGES
from deploy.quantize.options import GRANULARITIES, Form, Int8Options, Say
from deploy.quantize.qdq import Layer, layers
from deploy.quantize.ranges import CalibrationSet, collect
from deploy.quantize.report import Report, Sensitivity, sensitivity_table


@dataclass(frozen=True)
class Quantized:
    """An INT8 or FP8 model, and the report of the search."""

    models: Mapping[Form, bytes]
    """In its forms: for TensorRT with float16 beside it; of INT8 also for CPUs, with unsigned activations."""
    report: Report


def quantize(
    model: bytes,
    calibration: CalibrationSet,
    evaluate: Evaluate,
    options: Int8Options,
    *,
    learned: Mapping[str, float] | None = None,
    metric: Metric = MIOU,
    say: Say = print,
) -> Quantized:
    """Quantize an fp32 model within an accuracy budget.

    Tries every calibrator with all layers in INT8 and takes the best. If it is over the budget, ranks the layers by the
    gain of leaving each alone in float, and leaves the first of the ranking in float: a greedy search, see `_mixed`.

    Args:
        model: bytes of the fp32 ONNX file.
        calibration: images to compute the ranges from; see `deploy.quantize.ranges.collect`.
        evaluate: measures a model with the inputs and outputs of `model` on labeled images that are not in the
            calibration set. A model within the budget in the form that will run is also measured in the other: the two
            differ where values are clipped, in sums and in float16.
        options: the budget, and what to try.
        learned: ranges by tensor that quantization-aware training found, tried as one more calibrator; missing tensors
            take the range of the first calibrator.
        metric: the score that `evaluate` returns.
        say: prints a line of progress, or the ranking as a table.

    Raises:
        UserError: a model that is damaged, not in fp32 or without convolutions; fewer than `MIN_CALIBRATION_IMAGES`
            with a valid pixel; an unknown calibrator, granularity or layer.
        GateFailed: no model with at most `options.max_float` of its layers in float, `options.keep_float` not counted,
            meets the budget.
    """
    found = _checked_layers(model, options)
    always_float = _named(options.keep_float, found)
    histograms = _calibrated(model, found, calibration, say)
    fp32, format = evaluate(model, None), FORMATS[options.precision]
    bench = Bench(model, evaluate, options.budget, fp32, metric, always_float, options.form, format)
    attempts = _attempts(bench, histograms, options.calibrators, learned, say)
    images = next(iter(histograms.values())).images
    report, result = _report(bench, attempts, images, len(found))
    if not options.sensitivity and result.passed:
        return _quantized(result, report)
    units = _units([layer for layer in found if layer.name not in always_float], options.granularity)
    return _ranked(bench, report, result, units, int(options.max_float * len(found)), say)


def _checked_layers(model: bytes, options: Int8Options) -> list[Layer]:
    """The layers that can run in INT8; `UserError` for unknown options, and a model without such layers."""
    unknown = [name for name in options.calibrators if name not in CALIBRATORS]
    if unknown or not options.calibrators:
        raise UserError(f"calibrators: {', '.join(unknown) or 'none'}; choose from {', '.join(CALIBRATORS)}")
    if options.granularity not in GRANULARITIES:
        raise UserError(
            f"granularity: {options.granularity!r} is unknown; choose {' or '.join(GRANULARITIES)}"
        )
    found = layers(model, FORMATS[options.precision])
    if not found:
        most = FORMATS[options.precision].largest_kernel
        limit = f" with kernels of at most {most:.0f}×{most:.0f}" if most < math.inf else ""
        raise UserError(
            f"the model has no layer that {options.precision} can compute (convolutions{limit}, and matrix products,"
            " with constant weights); choose another precision"
        )
    return found


def _named(wanted: Collection[str], found: Sequence[Layer]) -> tuple[str, ...]:
    """Names of the layers that `wanted` selects: by layer, by block, or as "first" or "last"."""
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
    """By calibrator, the model with all layers in INT8."""
    candidates = {name: _ranges(histograms, name) for name in calibrators}
    if learned is not None:
        candidates["learned"] = candidates[calibrators[0]] | dict(learned)
    attempts: dict[str, Attempt] = {}
    for name, ranges in candidates.items():
        attempts[name] = bench.attempt(ranges)
        say(f"{bench.format.name}, {name}: {bench.all_words(attempts[name])}")
    return attempts


def _report(
    bench: Bench, attempts: Mapping[str, Attempt], images: int, layer_count: int
) -> tuple[Report, Attempt]:
    """The report, and the best of the attempts."""
    best = max(attempts, key=lambda name: attempts[name].rank)
    result = attempts[best]
    report = Report(
        metric=bench.metric.name,
        unit=bench.metric.unit,
        factor=bench.metric.factor,
        images=images,
        budget=bench.budget,
        fp32=bench.fp32,
        form=bench.form,
        calibrators={name: attempt.ranked for name, attempt in attempts.items()},
        calibrator=best,
        int8=result.figures,
        forms=dict(result.scores),
        layers=layer_count,
        all_int8=result.scores[result.decisive],
        float_layers=result.float_layers,
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
    """Rank the units, print the ranking before anything can fail, and leave units in float where needed."""
    unit = "layers" if all(len(names) == 1 for names in units.values()) else "blocks"
    say(f"{bench.format.name}, {report.calibrator}: measuring {len(units)} {unit}, each alone in float")
    report = replace(report, sensitivity=tuple(_ranking(bench, result, units)))
    say(sensitivity_table(report))
    if not result.passed:
        result = _mixed(bench, result, report.sensitivity, most)
        mixed = f"{len(result.float_layers)} of {report.layers} layers in float"
        say(f"{bench.format.name}, {report.calibrator}, {mixed}: {bench.all_words(result)}")
        say(f"{bench.format.name}, in float: {', '.join(result.float_layers)}")
        report = replace(
            report, int8=result.figures, forms=dict(result.scores), float_layers=result.float_layers
        )
    return _quantized(result, report)


def _quantized(result: Attempt, report: Report) -> Quantized:
    return Quantized(result.models, report)


def _calibrated(
    model: bytes, found: Sequence[Layer], calibration: CalibrationSet, say: Say
) -> dict[str, Histogram]:
    """Collect the distributions of all tensors that get a grid; `UserError` for too few images."""
    histograms = collect(model, list(dict.fromkeys(t for layer in found for t in layer.tensors)), calibration)
    images = next(iter(histograms.values())).images
    if images < MIN_CALIBRATION_IMAGES:
        raise UserError(
            f"the calibration set has {images} images with a valid pixel; at least {MIN_CALIBRATION_IMAGES} are"
            f" needed, {ENOUGH_CALIBRATION_IMAGES} or more are better"
        )
    if images < ENOUGH_CALIBRATION_IMAGES:
        say(
            f"warning: only {images} calibration images; {ENOUGH_CALIBRATION_IMAGES} or more give safer ranges"
        )
    return histograms


def _ranges(histograms: Mapping[str, Histogram], calibrator: str) -> dict[str, float]:
    return {tensor: CALIBRATORS[calibrator](histogram) for tensor, histogram in histograms.items()}


def _units(found: Sequence[Layer], granularity: str) -> dict[str, tuple[str, ...]]:
    """Layers that are left in float together: names of layers by the name of their unit."""
    units: dict[str, tuple[str, ...]] = {}
    for layer in found:
        unit = layer.block if granularity == "block" else layer.name
        units[unit] = (*units.get(unit, ()), layer.name)
    return units


def _ranking(bench: Bench, base: Attempt, units: Mapping[str, tuple[str, ...]]) -> list[Sensitivity]:
    """Rank the units by the model with each alone in float, the best first.

    Measured in the form of `base` that is over the budget, or that will run if none is. The order is by score, or by
    agreement where `base` fails only the limit of agreement.
    """
    rows = [
        Sensitivity(name, names, bench.figures(base.ranges, names, base.decisive))
        for name, names in counted(units.items())
    ]
    score_holds = bench.metric.drop(bench.fp32.score, base.figures.score) <= bench.budget.max_drop
    order = ("agreement", "score") if score_holds and not base.passed else ("score", "agreement")
    return sorted(rows, key=lambda row: [getattr(row.figures, field) for field in order], reverse=True)


def _mixed(bench: Bench, base: Attempt, ranking: Sequence[Sensitivity], most: int) -> Attempt:
    """Find an attempt that meets the budget with few units of the ranking, and at most `most` layers, in float.

    Bisection finds how many of the first units suffice, such that one fewer fails. Then units that are not needed are
    dropped, those with the smallest gain first. The set is not necessarily the smallest.

    Raises:
        GateFailed: the budget is not met with `most` layers in float.
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
    drop = 100 * bench.budget.max_drop
    most = f"{drop:.3f} %" if bench.metric.relative else f"-{drop:.3f}"
    limits = f"{most} and {100 * bench.budget.min_agreement:.3f} %"
    kept, figures = f"{len(best.float_layers)} layers left in float", bench.words(best.figures)
    training = " continue with quantization-aware training (QAT)," if bench.format is INT8 else ""
    return (
        f"{bench.format.name} with {kept}: {figures} is over the budget of {limits}; give more calibration images,"
        f"{training} or allow a larger budget"
    )
