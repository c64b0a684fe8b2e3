"""From a bundle to what a device runs: lower precision that keeps its accuracy, a compiled engine, a receipt.

    make_int8, make_fp16   ONNX files of lower precision, added to the bundle when they pass their gate
    prove                  every hop from the fp32 ONNX to the engine, measured on labeled images
    compare_golden         what can be said of an engine without them

The commands around them are in `deploy.build_engine`.
"""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from deploy.backends.engine import TENSORRT_MODELS
from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.bundle.bundle_files import extend_bundle, read_golden, read_manifest
from deploy.bundle.engine_files import engines_folder, record_verdict
from deploy.bundle.manifest import FP16, INT8, INT8_CPU, MODEL, QUANTIZATION, RECEIPT, Manifest, golden_metric
from deploy.errors import GateFailed, UserError
from deploy.evaluation.golden import compare
from deploy.evaluation.labeled_data import CalibrationImages, read_info, require_data
from deploy.evaluation.receipt import (
    Budget,
    Hop,
    HopReceipt,
    Receipt,
    Sample,
    Scorer,
    require_passed,
    run_hops,
    table,
)
from deploy.files.atomic import json_bytes, write_json
from deploy.loading import load
from deploy.quantize.report import Figures, Report, sensitivity_svg
from deploy.tasks.registry import model_of, task_of

BUDGETS = {
    "fp32": Budget(max_drop=0.001, min_agreement=0.995),
    "fp16": Budget(max_drop=0.001, min_agreement=0.995),
    "int8": Budget(max_drop=0.005, min_agreement=0.98),
}
"""What each precision may cost against the fp32 ONNX, as a file and as an engine: other kernels round otherwise."""

SENSITIVITY = "sensitivity.svg"
MADE = {"int8": (INT8, INT8_CPU), "fp16": (FP16,), "fp32": ()}
"""The models of each precision beside the one that the bundle was exported with."""
REPLACED = {"int8": (*MADE["int8"], QUANTIZATION, SENSITIVITY), "fp16": MADE["fp16"], "fp32": ()}
"""All files that making a precision replaces."""
NEEDED = {"int8": ("calibration", "val", "test"), "fp16": ("test",), "fp32": ("test",)}
"""What making a precision takes of the labeled data; proving it takes `test` alone."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Int8Options:
    """How the INT8 model is made; see `deploy.quantize.search.quantize`."""

    calibrators: tuple[str, ...] = ("min-max", "percentile", "entropy", "mse")
    granularity: str = "layer"
    sensitivity: bool = False
    """Measure every layer's share of the loss even where the budget is met."""
    keep_float: tuple[str, ...] = ()
    """Layers that stay in float whatever they gain."""
    budget: Budget = BUDGETS["int8"]


def make_int8(
    bundle: Path,
    data: Path,
    options: Int8Options,
    say: Say = print,
    learned: Mapping[str, float] | None = None,
) -> tuple[Receipt, Report]:
    """Quantize the bundle's model, and add the result to the bundle if it stays within the budget.

    Ranges come from `data/calibration`, or were `learned` in training (by tensor); the calibrator and the layers left
    in float are chosen by `data/val`, and the result is judged on `data/test`, which chooses nothing.

    Raises:
        UserError: data missing, damaged, or too few images.
        GateFailed: over the budget on either; the bundle is as it was.
    """
    from deploy.quantize.search import quantize

    manifest, start = read_manifest(bundle), time.perf_counter()
    task = task_of(manifest)
    require_data(data, *NEEDED["int8"], truth=task.truth)
    model = (bundle / MODEL).read_bytes()
    calibration = CalibrationImages(data / "calibration" / "images", manifest.input)
    evaluate = _Evaluation(manifest, model, list(task.read(data / "val", manifest)))
    made = quantize(
        model,
        calibration,
        evaluate,
        options.budget,
        calibrators=options.calibrators,
        granularity=options.granularity,
        sensitivity=options.sensitivity,
        keep_float=options.keep_float,
        learned=learned,
        metric=task.metric,
        say=say,
    )
    hops = [
        _hop("onnx", manifest, model),
        _hop("int8", manifest, made.int8, options.budget),
        _hop("int8 cpu", manifest, made.int8_cpu, options.budget),
    ]
    receipt = _judged(bundle, manifest, data, hops)
    require_passed(receipt)
    files = {INT8: made.int8, INT8_CPU: made.int8_cpu, QUANTIZATION: json_bytes(made.report)}
    if made.report.sensitivity:
        files[SENSITIVITY] = sensitivity_svg(made.report).encode()
    _extend(bundle, files, "int8", receipt, OrtEngine(made.int8_cpu))
    say(f"int8: quantized in {time.perf_counter() - start:.0f} s, added to {bundle}")
    return receipt, made.report


def make_fp16(bundle: Path, data: Path, say: Say = print) -> Receipt:
    """Convert the bundle's model to half precision, and add it to the bundle if it stays within the budget.

    Raises as `make_int8` does.
    """
    from deploy.quantize.half import to_fp16

    manifest = read_manifest(bundle)
    model = (bundle / MODEL).read_bytes()
    half = to_fp16(model)
    hops = [_hop("onnx", manifest, model), _hop("fp16", manifest, half, BUDGETS["fp16"])]
    receipt = _judged(bundle, manifest, data, hops)
    require_passed(receipt)
    _extend(bundle, {FP16: half}, "fp16", receipt, OrtEngine(half))
    say(f"fp16: converted, added to {bundle}")
    return receipt


def prove(
    bundle: Path,
    data: Path,
    backend: str,
    precision: str,
    *,
    engine: Path | None = None,
    runs_here: bool = True,
    budget: Budget | None = None,
    say: Say = print,
) -> Receipt:
    """Measure the hops fp32 ONNX → ONNX of the precision → engine on `data/test`, say the table and keep the receipt.

    `engine` is the file to prove, where one was compiled, and gets the verdict written beside it;
    `runs_here=False`: for another machine, so it is named but not run. `budget` is that of the precision if it is not
    given. The first row is torch as the export measured it on the same images, where it did. The receipt goes to
    `engines/`, with a warning where it cannot be written.
    """
    manifest, budget = read_manifest(bundle), budget or BUDGETS[precision]
    hops = [_hop("onnx", manifest, bundle / MODEL)]
    if precision != "fp32":
        hops.append(_hop(precision, manifest, bundle / TENSORRT_MODELS[precision], budget))
    name, not_run = f"{backend} {precision}", []
    if runs_here:
        model = _opened(bundle, backend, precision, engine)
        name, file = model.engine.name, model.engine.file
        hops.append(Hop(name, model, file.stat().st_size if file else 0, budget))
    elif engine:
        not_run = [(name, engine.stat().st_size)]
    receipt = _judged(bundle, manifest, data, hops)
    say(table(receipt, not_run))
    path = engines_folder(bundle) / f"{name.replace(' ', '-')}.receipt.json"
    _keep(path, lambda: write_json(path, receipt))
    if engine and runs_here:
        _keep(engine, lambda: record_verdict(engine, receipt.passed))
    return receipt


def compare_golden(
    bundle: Path, backend: str, precision: str, *, engine: Path | None = None, say: Say = print
) -> None:
    """What can be proved without labeled data: the golden outputs, as far as the precision allows.

    Raises `GateFailed` where they differ by more; the verdict is written beside `engine`, if one was compiled.
    """
    comparison = compare(bundle, _opened(bundle, backend, precision, engine).engine)
    say(comparison.text)
    if engine:
        _keep(engine, lambda: record_verdict(engine, comparison.passed))
    if not comparison.passed:
        raise GateFailed(f"{comparison.text}; the engine is not what the bundle was measured with")


def _opened(bundle: Path, backend: str, precision: str, engine: Path | None) -> Any:
    """The bundle on a backend, with this very `engine` if there is one."""
    if engine is None:
        return load(bundle, backend, precision=precision)
    from deploy.backends.tensorrt_gpu.engine import open_trt

    manifest = read_manifest(bundle)
    return model_of(manifest, open_trt(bundle, backend, precision, engine=engine))


def _keep(path: Path, write: Callable[[], None]) -> None:
    """Write what is good to have but not needed: in a read-only bundle a warning takes its place."""
    try:
        write()
    except (UserError, OSError) as error:
        warnings.warn(f"{path.name} not written: {error}", RuntimeWarning, stacklevel=3)


class _Evaluation:
    """Figures of a candidate on a few labeled images: what `quantize` chooses by."""

    def __init__(self, manifest: Manifest, model: bytes, samples: Sequence[Sample]) -> None:
        self._manifest, self._samples = manifest, samples
        reference = model_of(manifest, OrtEngine(model))
        self._labels = [reference(image).labels for _, image, _, _ in samples]

    def __call__(self, model: bytes) -> Figures:
        candidate = model_of(self._manifest, OrtEngine(model))
        scorer = _scorer(self._manifest)
        same = pixels = 0
        for (_, image, truth, valid), expected in zip(self._samples, self._labels, strict=True):
            result = candidate(image)
            scorer.update(result, truth, valid)
            same += int(np.count_nonzero((result.labels == expected) & valid))
            pixels += int(np.count_nonzero(valid))
        return Figures(score=scorer.score(), agreement=same / max(pixels, 1))


def _scorer(manifest: Manifest) -> Scorer:
    return task_of(manifest).scorer([one.name for one in manifest.classes])


def _hop(name: str, manifest: Manifest, model: bytes | Path, budget: Budget | None = None) -> Hop:
    size = len(model) if isinstance(model, bytes) else model.stat().st_size
    return Hop(name, model_of(manifest, OrtEngine(model)), size, budget)


def _judged(bundle: Path, manifest: Manifest, data: Path, hops: Sequence[Hop]) -> Receipt:
    """The receipt of the hops on `data/test`, with torch's recorded row before them if it saw the same images."""
    info, task = read_info(data), task_of(manifest)
    receipt = run_hops(
        hops,
        task.read(data / "test", manifest),
        partial(_scorer, manifest),
        metric=task.metric,
        dataset=info.dataset,
        split=info.test,
    )
    # With a threshold the labels are no longer those that torch was scored by.
    recorded = () if manifest.threshold is not None else _recorded_torch(bundle, receipt)
    return msgspec.structs.replace(receipt, hops=(*recorded, *receipt.hops))


def _recorded_torch(bundle: Path, receipt: Receipt) -> tuple[HopReceipt, ...]:
    try:
        exported = msgspec.json.decode((bundle / RECEIPT).read_bytes(), type=Receipt)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):  # none, or not one of ours
        return ()
    same = all(
        getattr(exported, field) == getattr(receipt, field)
        for field in ("dataset", "split", "images", "metric")
    )
    return tuple(hop for hop in exported.hops[:1] if same and hop.name == "torch")


def _extend(bundle: Path, files: dict[str, bytes], name: str, receipt: Receipt, engine: OrtEngine) -> None:
    """Add files of a lower precision to the bundle, with its score and its share of golden labels as metrics."""
    precision = dict.fromkeys(MADE[name], name)
    golden = read_golden(bundle)
    agreement = float(np.mean(engine.run(golden["inputs"])["labels"] == golden["labels"]))
    score = next(hop.score for hop in receipt.hops if hop.name == name)
    key = task_of(read_manifest(bundle)).metric.key
    metrics = {f"{name} {key}": score, golden_metric(name): agreement}
    extend_bundle(bundle, files, precision, metrics, drop=REPLACED[name])
