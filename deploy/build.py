"""From a bundle to what a device runs: lower precision that keeps its accuracy, a compiled engine, a receipt.

    make_int8, make_fp16   ONNX files of lower precision, added to the bundle when they pass their gate
    prove                  every hop from the fp32 ONNX to the engine, measured on labelled images

The commands around them are in `deploy.build_engine`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from deploy.backends import model_file
from deploy.backends.ort import OrtEngine
from deploy.bundle import (
    FP16,
    INT8,
    INT8_CPU,
    MODEL,
    QUANTIZATION,
    RECEIPT,
    Manifest,
    extend_bundle,
    golden_metric,
    read_golden,
    read_manifest,
)
from deploy.engines import engines_folder
from deploy.errors import UserError
from deploy.files import write_json
from deploy.labelled import CalibrationImages, read_info, read_labelled
from deploy.metrics import SegmentationMetrics
from deploy.quantize.report import Figures, Report, sensitivity_svg, sensitivity_table
from deploy.runtime import Model, load
from deploy.verify import Budget, Hop, HopReceipt, Receipt, Sample, require_passed, run_hops

BUDGETS = {
    "fp32": Budget(max_miou_drop=0.001, min_agreement=0.995),
    "fp16": Budget(max_miou_drop=0.001, min_agreement=0.995),
    "int8": Budget(max_miou_drop=0.005, min_agreement=0.98),
}
"""What each precision may cost against the fp32 ONNX, as a file and as an engine: other kernels round otherwise."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Int8Options:
    """How the INT8 model is made; see `deploy.quantize.search.quantize`."""

    calibrators: tuple[str, ...] = ("min-max", "percentile", "entropy", "mse")
    granularity: str = "layer"
    sensitivity: bool = False
    """Measure every layer's share of the loss even where the budget is met."""
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
    model = (bundle / MODEL).read_bytes()
    calibration = CalibrationImages(_folder(data / "calibration" / "images"), manifest.input)
    evaluate = _Evaluation(manifest, model, _samples(manifest, data / "val"))
    made = quantize(
        model,
        calibration,
        evaluate,
        options.budget,
        calibrators=options.calibrators,
        granularity=options.granularity,
        sensitivity=options.sensitivity,
        learned=learned,
        say=say,
    )
    if made.report.sensitivity:
        say(sensitivity_table(made.report))
    hops = [
        _hop("onnx", manifest, model),
        _hop("int8", manifest, made.int8, options.budget),
        _hop("int8 cpu", manifest, made.int8_cpu, options.budget),
    ]
    receipt = _judged(bundle, manifest, data, hops)
    require_passed(receipt)
    files = {INT8: made.int8, INT8_CPU: made.int8_cpu, QUANTIZATION: _json(made.report)}
    if made.report.sensitivity:
        files["sensitivity.svg"] = sensitivity_svg(made.report).encode()
    _extend(bundle, files, {INT8: "int8", INT8_CPU: "int8"}, receipt, OrtEngine(made.int8_cpu))
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
    _extend(bundle, {FP16: half}, {FP16: "fp16"}, receipt, OrtEngine(half))
    say(f"fp16: converted, added to {bundle}")
    return receipt


def prove(
    bundle: Path,
    data: Path,
    backend: str,
    precision: str,
    *,
    runs_here: bool = True,
    budget: Budget | None = None,
) -> Receipt:
    """Measure the hops fp32 ONNX → ONNX of the precision → engine on `data/test`; keep the receipt in `engines/`.

    The first row is torch as the export measured it on the same images, where it did. `runs_here=False` leaves the
    engine out: it was compiled for another machine. `budget` is that of the precision if it is not given.
    """
    manifest, budget = read_manifest(bundle), budget or BUDGETS[precision]
    hops = [_hop("onnx", manifest, bundle / MODEL)]
    if precision != "fp32":
        file = {"int8": INT8, "fp16": FP16}[precision]
        hops.append(_hop(precision, manifest, bundle / file, budget))
    name = backend
    if runs_here:
        model = load(bundle, backend, precision=precision)
        name = model.engine.name
        size = model_file(bundle, *name.split()).stat().st_size
        hops.append(Hop(name, model, size, budget))
    receipt = _judged(bundle, manifest, data, hops)
    write_json(engines_folder(bundle) / f"{name.replace(' ', '-')}.receipt.json", receipt)
    return receipt


class _Evaluation:
    """Figures of a candidate on a few labelled images: what `quantize` chooses by."""

    def __init__(self, manifest: Manifest, model: bytes, samples: Sequence[Sample]) -> None:
        self._manifest, self._samples = manifest, samples
        reference = Model(manifest.input, manifest.classes, OrtEngine(model), manifest.ignore_label)
        self._labels = [reference(image).labels for _, image, _, _ in samples]

    def __call__(self, model: bytes) -> Figures:
        manifest = self._manifest
        candidate = Model(manifest.input, manifest.classes, OrtEngine(model), manifest.ignore_label)
        metrics = SegmentationMetrics(len(manifest.classes))
        same = pixels = 0
        for (_, image, label, valid), expected in zip(self._samples, self._labels, strict=True):
            labels = candidate(image).labels
            metrics.update(labels, label, valid)
            same += int(np.count_nonzero((labels == expected) & valid))
            pixels += int(np.count_nonzero(valid))
        return Figures(miou=metrics.scores().miou, agreement=same / max(pixels, 1))


def _hop(name: str, manifest: Manifest, model: bytes | Path, budget: Budget | None = None) -> Hop:
    size = len(model) if isinstance(model, bytes) else model.stat().st_size
    engine = OrtEngine(model)
    return Hop(name, Model(manifest.input, manifest.classes, engine, manifest.ignore_label), size, budget)


def _judged(bundle: Path, manifest: Manifest, data: Path, hops: Sequence[Hop]) -> Receipt:
    """The receipt of the hops on `data/test`, with torch's recorded row before them if it saw the same images."""
    info = read_info(data)
    folder = _folder(data / "test")
    samples = read_labelled(folder, len(manifest.classes), manifest.ignore_label)
    names = [one.name for one in manifest.classes]
    receipt = run_hops(
        hops, samples, len(manifest.classes), dataset=info.dataset, split=info.test, classes=names
    )
    recorded = _recorded_torch(bundle, receipt)
    return msgspec.structs.replace(receipt, hops=(*recorded, *receipt.hops))


def _recorded_torch(bundle: Path, receipt: Receipt) -> tuple[HopReceipt, ...]:
    path = bundle / RECEIPT
    if not path.is_file():
        return ()
    exported = msgspec.json.decode(path.read_bytes(), type=Receipt)
    same = all(
        getattr(exported, field) == getattr(receipt, field) for field in ("dataset", "split", "images")
    )
    return exported.hops[:1] if same and exported.hops[0].name == "torch" else ()


def _extend(
    bundle: Path, files: dict[str, bytes], precision: dict[str, str], receipt: Receipt, engine: OrtEngine
) -> None:
    """Add files of a lower precision to the bundle, with its score and its share of golden labels as metrics."""
    name = next(iter(precision.values()))
    golden = read_golden(bundle)
    agreement = float(np.mean(engine.run(golden["inputs"])["labels"] == golden["labels"]))
    score = next(hop.miou for hop in receipt.hops if hop.name == name)
    extend_bundle(bundle, files, precision, {f"{name} miou": score, golden_metric(name): agreement})


def _samples(manifest: Manifest, folder: Path) -> list[Sample]:
    return list(read_labelled(_folder(folder), len(manifest.classes), manifest.ignore_label))


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise UserError(
            f"{path}: no such folder, so there is nothing to calibrate with or to measure on;"
            " give --data FOLDER with calibration/images, val/ and test/ (images and masks)"
        )
    return path


def _json(record: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"
