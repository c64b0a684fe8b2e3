"""The steps of `edgedistill build`, which turns a bundle into what a device runs.

    make_quantized, make_fp16   add ONNX files of lower precision to the bundle if they pass their gate
    verify_build                measures every hop from the fp32 ONNX to the engine on labeled images

`deploy.build_engine` is the command that runs them.
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np

from deploy.backends.engine import CPU, CPU_MODELS, TENSORRT_MODELS
from deploy.backends.gpu_options import DEFAULT, GpuOptions
from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.build.evaluation import Evaluation, scorer_of
from deploy.build.golden_check import write_optional
from deploy.build.made_files import FORMS, MADE, NEEDED, RECORDS, REPLACED
from deploy.build.opening import open_built
from deploy.bundle.bundle_files import extend_bundle, read_manifest
from deploy.bundle.engine_files import computes_in_tf32, engines_folder, read_sidecar, record_verdict
from deploy.bundle.golden_file import read_golden
from deploy.bundle.manifest import (
    FP16,
    MODEL,
    RECEIPT,
    Manifest,
    golden_metric,
)
from deploy.evaluation.labeled_data import CalibrationImages, read_info, require_data
from deploy.evaluation.receipt import (
    INT8_BUDGET,
    Budget,
    Hop,
    HopReceipt,
    Receipt,
    require_passed,
    run_hops,
    table,
)
from deploy.files.atomic import json_bytes, write_json
from deploy.files.json_files import read_json
from deploy.heartbeat import working
from deploy.quantize.options import Form, Int8Options, Precision, Say
from deploy.quantize.report import Report, sensitivity_svg
from deploy.quantize.simulation import simulated
from deploy.tasks.registry import model_of, task_of

BUDGETS = {
    "fp32": Budget(max_drop=0.001, min_agreement=0.995),
    "fp16": Budget(max_drop=0.001, min_agreement=0.995),
    "int8": INT8_BUDGET,
    "fp8": INT8_BUDGET,
}
"""Budget of each precision against the fp32 ONNX: of the ONNX file, and of engines, whose kernels round differently."""


def make_quantized(
    bundle: Path,
    data: Path,
    options: Int8Options,
    say: Say = print,
    learned: Mapping[str, float] | None = None,
) -> tuple[Receipt, Report]:
    """Quantize the bundle's model to INT8 or FP8, and add the result to the bundle if it is within the budget.

    `data/calibration` determines the ranges and `data/val` the calibrator and the layers left in float; the result is
    measured on `data/test`, which has no part in these choices.

    Args:
        bundle: folder of the bundle.
        data: folder of labeled images.
        options: how to quantize, and the budget.
        say: prints progress.
        learned: ranges by tensor from quantization-aware training, tried as one more calibrator.

    Returns:
        The receipt of the gate, and the report of the search.

    Raises:
        UserError: data missing or damaged, or too few images.
        GateFailed: over the budget on `val` or `test`; the bundle is unchanged.
    """
    from deploy.quantize.search import quantize  # optional dependency: onnx

    manifest, start, name = read_manifest(bundle), time.perf_counter(), options.precision
    task = task_of(manifest)
    require_data(data, *NEEDED[name], truth=task.truth)
    model = (bundle / MODEL).read_bytes()
    calibration = CalibrationImages(data / "calibration" / "images", manifest.input)
    evaluate = Evaluation(manifest, model, list(task.read(data / "val", manifest)))
    with working(f"{name}: calibrating and choosing layers", say):
        made = quantize(model, calibration, evaluate, options, learned=learned, metric=task.metric, say=say)
    hops = [_hop("onnx", manifest, model)]
    hops += [
        _hop(_form(name, form), manifest, made.models[form], options.budget, "onnx") for form in FORMS[name]
    ]
    receipt = _measure(bundle, manifest, data, hops)
    require_passed(receipt)
    files = {file: made.models[form] for form, file in FORMS[name].items()} | _records(name, made.report)
    engines = [OrtEngine(model) if form == "cpu" else simulated(model) for form, model in made.models.items()]
    _extend(bundle, manifest, files, name, receipt, engines)
    say(f"{name}: quantized in {time.perf_counter() - start:.0f} s, added to {bundle}")
    return receipt, made.report


def _records(precision: Precision, report: Report) -> dict[str, bytes]:
    """The files that tell how a model was quantized."""
    record, picture = RECORDS[precision]
    files = {record: json_bytes(report)}
    return files | {picture: sensitivity_svg(report).encode()} if report.sensitivity else files


def make_fp16(bundle: Path, data: Path, say: Say = print) -> Receipt:
    """Convert the bundle's model to half precision, and add the result to the bundle if it is within the budget.

    Raises:
        UserError: data missing or damaged, or a model that cannot be converted.
        GateFailed: over the budget on `data/test`; the bundle is unchanged.
    """
    from deploy.quantize.half import to_fp16  # optional dependency: onnx

    manifest = read_manifest(bundle)
    model = (bundle / MODEL).read_bytes()
    half = to_fp16(model)
    hops = [_hop("onnx", manifest, model), _hop("fp16", manifest, half, BUDGETS["fp16"])]
    receipt = _measure(bundle, manifest, data, hops)
    require_passed(receipt)
    _extend(bundle, manifest, {FP16: half}, "fp16", receipt, [OrtEngine(half)])
    say(f"fp16: converted, added to {bundle}")
    return receipt


def verify_build(
    bundle: Path,
    data: Path,
    backend: str,
    precision: str,
    *,
    engine: Path | None = None,
    runs_here: bool = True,
    budget: Budget | None = None,
    gpu: GpuOptions = DEFAULT,
    say: Say = print,
) -> Receipt:
    """Measure the hops fp32 ONNX → ONNX of the precision → engine on `data/test`, and print the table.

    Writes the receipt to `engines/`, or warns where it cannot be written. The first row is the torch model as the
    export measured it, if that was on the same images.

    Args:
        bundle: folder of the bundle.
        data: folder of labeled images.
        backend: name of the backend.
        precision: "fp32", "fp16", "int8" or "fp8".
        engine: file of the engine, if one was compiled; the verdict is written beside it.
        runs_here: False if the engine is for another machine: it is then listed but not run.
        budget: default: that of the precision.
        gpu: how the engine is opened.
        say: prints the table.

    Returns:
        The receipt. A hop over the budget does not raise here; see `require_passed`.
    """
    manifest, budget = read_manifest(bundle), budget or BUDGETS[precision]
    hops = [_hop("onnx", manifest, bundle / MODEL)]
    if precision != "fp32":
        hops.append(_made_for(backend, bundle, manifest, precision, budget))
    name, not_run = f"{backend} {precision}", []
    if runs_here:
        model = open_built(bundle, backend, precision, engine, gpu)
        name, file = model.engine.name, model.engine.file
        hops.append(Hop(name, model, file.stat().st_size if file else 0, budget))
    elif engine:
        hops += _emulated(bundle, manifest, engine, budget)
        not_run = [(name, engine.stat().st_size)]
    receipt = _measure(bundle, manifest, data, hops)
    say(table(receipt, not_run))
    path = engines_folder(bundle) / f"{name.replace(' ', '-')}.receipt.json"
    write_optional(path, lambda: write_json(path, receipt))
    if engine and runs_here:
        write_optional(engine, lambda: record_verdict(engine, receipt.passed))
    return receipt


def _emulated(bundle: Path, manifest: Manifest, engine: Path, budget: Budget) -> list[Hop]:
    """What an fp32 engine that does not run here will compute in TF32; nothing without onnx, or where it does not."""
    if not computes_in_tf32(read_sidecar(engine)) or find_spec("onnx") is None:
        return []
    from deploy.quantize.tf32 import as_tf32  # optional dependency

    return [_hop("tf32, emulated", manifest, as_tf32((bundle / MODEL).read_bytes()), budget)]


def _made_for(backend: str, bundle: Path, manifest: Manifest, precision: str, budget: Budget) -> Hop:
    """The ONNX file that the backend takes."""
    form, files = ("cpu", CPU_MODELS) if backend in ("auto", *CPU) else ("tensorrt", TENSORRT_MODELS)
    return _hop(_form(precision, form), manifest, bundle / files[precision], budget)


def _form(precision: str, form: Form) -> str:
    """The name of a hop: "int8" is TensorRT's form, with float16 scales."""
    return f"{precision} cpu" if form == "cpu" and precision == "int8" else precision


def _hop(
    name: str, manifest: Manifest, model: bytes | Path, budget: Budget | None = None, source: str = ""
) -> Hop:
    """An ONNX file in ONNX Runtime."""
    size = len(model) if isinstance(model, bytes) else model.stat().st_size
    engine = simulated(model) if name in FORMS else OrtEngine(model)
    return Hop(name, model_of(manifest, engine), size, budget, source)


def _measure(bundle: Path, manifest: Manifest, data: Path, hops: Sequence[Hop]) -> Receipt:
    """Measure the hops on `data/test`; the recorded row of torch comes first if it is of the same images."""
    info, task = read_info(data), task_of(manifest)
    with working("scoring every hop"):
        receipt = run_hops(
            hops,
            task.read(data / "test", manifest),
            partial(scorer_of, manifest),
            metric=task.metric,
            dataset=info.dataset,
            split=info.test,
        )
    # With a threshold, labels differ from those that torch was scored with.
    recorded = () if manifest.threshold is not None else _recorded_torch(bundle, receipt)
    return msgspec.structs.replace(receipt, hops=(*recorded, *receipt.hops))


def _recorded_torch(bundle: Path, receipt: Receipt) -> tuple[HopReceipt, ...]:
    try:
        exported = read_json(bundle / RECEIPT, Receipt)
    except (OSError, ValueError):  # no receipt, or another program's
        return ()
    same = all(
        getattr(exported, field) == getattr(receipt, field)
        for field in ("dataset", "split", "images", "metric")
    )
    return tuple(hop for hop in exported.hops[:1] if same and hop.name == "torch")


def _extend(
    bundle: Path,
    manifest: Manifest,
    files: dict[str, bytes],
    name: str,
    receipt: Receipt,
    engines: Sequence[OrtEngine],
) -> None:
    """Add files of a lower precision to the bundle; its score and its share of golden labels become metrics.

    The share is the smallest of `engines`, one for each form of the precision. `manifest` is the one that the files
    were made by; where the network has been replaced since then, a `UserError`.
    """
    precision = dict.fromkeys(MADE[name], name)
    golden = read_golden(bundle, manifest)
    labels = [engine.run(golden["inputs"])["labels"] for engine in engines]
    agreement = min(float(np.mean(one == golden["labels"])) for one in labels)
    score = next(hop.score for hop in receipt.hops if hop.name == name)
    key = task_of(manifest).metric.key
    metrics = {f"{name} {key}": score, golden_metric(name): agreement}
    made_from = {MODEL: manifest.files[MODEL]}
    extend_bundle(bundle, files, precision, metrics, drop=REPLACED[name], made_from=made_from)
