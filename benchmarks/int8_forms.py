"""What is gained by the form of Q/DQ? `python benchmarks/int8_forms.py BUNDLE … [--target sm86] [--json FILE]`.

Takes bundles with an INT8 model and the labeled images of their runs beside them. Scores each form of the same grids,
the complete one (Q and DQ on both terms of every sum, the rest in fp32) and the two of the bundle, in ONNX Runtime on
the test images, compiles it with TensorRT-RTX, which needs no GPU, and counts its layers. The fp32 and half-precision
networks, and FP8 if the bundle has it, stand beside them.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: imports start at the repository, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from deploy.backends.tensorrt_gpu.layer_report import HEADING, LayerReport
from deploy.build.evaluation import Evaluation
from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.manifest import FP8, INT8, INT8_CPU, MODEL, QUANTIZATION
from deploy.errors import UserError, exit_with_one_line
from deploy.evaluation.labeled_data import data_folder, require_data
from deploy.files.atomic import write_json
from deploy.files.json_files import read_json
from deploy.quantize.report import Report
from deploy.table import format_table
from deploy.tasks.registry import task_of

CPU_ONLY = ("int8 cpu",)
"""Forms that TensorRT does not read."""
CPU_KERNELS = ("fp32", "int8 cpu")
"""Forms that ONNX Runtime runs with its own kernels."""


def main(argv: Sequence[str]) -> int:
    """Measure the bundles, print a table for each and write the JSON."""
    options = _parser().parse_args(argv)
    if options.target and not find_spec("tensorrt_rtx"):
        raise UserError(
            "counting layers needs TensorRT-RTX: pip install 'edgedistill[rtx-cu13]', or give --target ''"
        )
    results = {}
    for bundle in options.bundles:
        results[str(bundle)] = measured = measure(bundle, options.target)
        print(f"{bundle}\n{tables(bundle, measured)}\n")
    if options.json:
        write_json(options.json, results)
    return 0


def forms(bundle: Path) -> dict[str, bytes]:
    """The models to compare by name: of the complete form, which no bundle has, made from the bundle's ranges."""
    from deploy.quantize.half import to_fp16  # optional dependency: onnx
    from deploy.quantize.qdq import insert

    manifest = read_manifest(bundle)
    missing = [name for name in (INT8, INT8_CPU, QUANTIZATION) if name not in manifest.files]
    if missing:
        raise UserError(f"{bundle}: has no {missing[0]}; make it: edgedistill build {bundle}")
    report, model = read_json(bundle / QUANTIZATION, Report), (bundle / MODEL).read_bytes()
    made = {
        "fp32": model,
        "fp16": to_fp16(model),
        "int8 complete": insert(model, report.ranges, report.float_layers),
        "int8": (bundle / INT8).read_bytes(),
        "int8 cpu": (bundle / INT8_CPU).read_bytes(),
    }
    return made | ({"fp8": (bundle / FP8).read_bytes()} if FP8 in manifest.files else {})


def measure(bundle: Path, target: str) -> dict[str, dict[str, float]]:
    """Score, agreement with fp32 and, with a target, numbers of layers, by form."""
    manifest = read_manifest(bundle)
    data, task = data_folder(bundle), task_of(manifest)
    require_data(data, "test", truth=task.truth)
    models = forms(bundle)
    evaluate = Evaluation(manifest, models["fp32"], list(task.read(data / "test", manifest)))
    measured: dict[str, dict[str, float]] = {}
    for name, model in models.items():
        figures = evaluate(model, None if name in CPU_KERNELS else "tensorrt")
        measured[name] = {"score": figures.score, "agreement": figures.agreement}
        if target and name not in CPU_ONLY:
            fp8_target = "sm89" if name == "fp8" and int(target.removeprefix("sm")) < 89 else target
            measured[name] |= counts(compile_ahead(model, bundle / MODEL, fp8_target))
    return measured


def compile_ahead(model: bytes, source: Path, target: str) -> LayerReport:
    """The layers of the engine that TensorRT-RTX compiles for a compute capability."""
    from deploy.backends.tensorrt_gpu.compile import compile_network
    from deploy.backends.tensorrt_gpu.log import listen
    from deploy.backends.tensorrt_gpu.options import BuildOptions
    from deploy.backends.tensorrt_gpu.packages import import_tensorrt
    from deploy.backends.tensorrt_gpu.progress import Progress

    trt: Any = import_tensorrt("tensorrt-rtx")
    options = BuildOptions("tensorrt-rtx", "fp32", targets=(target,))
    with listen(trt, lambda message: message.text.startswith(HEADING)) as messages:
        compiled = compile_network(
            trt, model, source, options, (target,), messages, Progress(None), threading.Event()
        )
    if compiled.layers is None:
        raise UserError(f"{source}: TensorRT-RTX did not list its layers; upgrade edgedistill")
    return compiled.layers


def counts(report: LayerReport) -> dict[str, float]:
    """Layers in all, those that only convert, and products by type."""
    products = Counter(
        f"{'convolutions' if one.convolution else 'matrices'} {one.precision}" for one in report.products
    )
    return {"layers": len(report.layers), "conversions": len(report.conversions), **products}


def tables(bundle: Path, measured: Mapping[str, Mapping[str, float]]) -> str:
    """The figures as text."""
    metric = task_of(read_manifest(bundle)).metric
    first = measured["fp32"]["score"]
    columns = sorted(
        {name for row in measured.values() for name in row} - {"score", "agreement", "layers", "conversions"}
    )
    counted = ["layers", "conversions", *columns] if columns else []
    rows = [
        (
            name,
            metric.text(row["score"]),
            metric.change(row["score"] - first),
            f"{100 * row['agreement']:.2f}",
            *(str(row.get(column, "" if name in CPU_ONLY else 0)) for column in counted),
        )
        for name, row in measured.items()
    ]
    return format_table(("form", metric.header, "change", "agreement %", *counted), rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks/int8_forms.py", description=__doc__)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument(
        "--target",
        default="sm86",
        help="compute capability to compile for (default %(default)s; FP8 at least sm89); '' compiles nothing",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    return parser


if __name__ == "__main__":
    exit_with_one_line(lambda: main(sys.argv[1:]))
