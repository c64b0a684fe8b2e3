"""Quantize and compile a bundle for a device, and prove the result: `python deploy/build_engine.py BUNDLE`."""

import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository root, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from collections.abc import Sequence
from importlib.util import find_spec

from deploy.build import BUDGETS, Int8Options, make_fp16, make_int8, prove
from deploy.bundle import FP16, INT8, INT8_CPU, read_manifest, verify_files
from deploy.errors import UserError, exit_with_one_line
from deploy.labelled import data_folder
from deploy.verify import Budget, require_passed, table

TENSORRT = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Backends that compile, with the module that each needs."""
PRECISIONS = {"int8": (INT8, INT8_CPU), "fp16": (FP16,), "fp32": ()}


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Raises:
        UserError: what the user can mend.
        GateFailed: a hop over its budget.
    """
    options = _parser().parse_args(argv)
    bundle, precision = options.bundle, options.precision
    data = options.data or data_folder(bundle)
    manifest = read_manifest(bundle)
    verify_files(bundle, manifest)
    backend, why = choose_backend(options.backend)
    print(f"{manifest.name}: {precision} for {backend}{why}")

    if options.redo or not set(PRECISIONS[precision]) <= set(manifest.files):
        _require_onnx(precision)
        if precision == "int8":
            make_int8(bundle, data, _int8_options(options))
        elif precision == "fp16":
            make_fp16(bundle, data)
    runs_here, compiled = True, []
    if backend in TENSORRT:
        runs_here, compiled = _compile(options, backend)
    budget = Budget(options.max_miou_drop, options.min_agreement) if precision == "int8" else None
    receipt = prove(bundle, data, backend, precision, runs_here=runs_here, budget=budget)
    print(table(receipt, not_run=[] if runs_here else compiled))
    if not runs_here:
        print(
            "The engine is for another machine: copy the bundle there and run `edgedistill verify` and `predict`."
        )
    require_passed(receipt)
    return 0


def _require_onnx(precision: str) -> None:
    if precision != "fp32" and find_spec("onnx") is None:
        raise UserError(f"making the {precision} model needs onnx: pip install 'edgedistill[quantize]'")


def choose_backend(asked: str) -> tuple[str, str]:
    """The backend to build for, and why in words: TensorRT where this machine has a GPU and it, else the CPU's."""
    if asked != "auto":
        return asked, ""
    from deploy.backends.cuda import probe

    if probe() is None:
        return (
            "auto",
            " on the CPU (no NVIDIA GPU here; --backend tensorrt-rtx compiles for one all the same)",
        )
    for backend, module in TENSORRT.items():
        if find_spec(module):
            return backend, ""
    return "auto", " on the CPU (there is a GPU, but no TensorRT: pip install 'edgedistill[tensorrt]')"


def _compile(options: argparse.Namespace, backend: str) -> tuple[bool, list[tuple[str, int]]]:
    """Build the engine; whether it runs on this machine, and its name and size for the table."""
    from deploy.backends.cuda import probe
    from deploy.backends.trt_builder import BuildOptions, build_engine

    built = build_engine(
        options.bundle,
        BuildOptions(
            backend=backend,  # pyright: ignore[reportArgumentType] - choices of the parser
            precision=options.precision,
            batch=_batch(options.batch),
            workspace_mb=options.workspace,
            timing_cache=options.timing_cache,
            targets=tuple(filter(None, options.targets.split(","))),
            hardware_compatible=options.hardware_compatible,
            version_compatible=options.version_compatible,
            dla_core=options.dla,
            allow_gpu_fallback=not options.no_gpu_fallback,
            optimization_level=options.optimization_level,
        ),
        progress=sys.stderr.isatty(),
    )
    gpu, targets = probe(), built.sidecar.targets
    fits = gpu is not None and (not targets or f"sm{gpu.compute_capability.replace('.', '')}" in targets)
    return fits, [(f"{backend} {options.precision}", built.sidecar.bytes)]


def _int8_options(options: argparse.Namespace) -> Int8Options:
    return Int8Options(
        calibrators=tuple(options.calibrators.split(",")),
        granularity=options.granularity,
        sensitivity=options.sensitivity,
        budget=Budget(options.max_miou_drop, options.min_agreement),
    )


def _batch(text: str) -> tuple[int, int, int]:
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if len(sizes) == 1:
        sizes *= 3
    if len(sizes) != 3 or not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
        raise UserError(f"--batch {text}: give one size, or smallest,best,largest such as 1,4,8")
    return sizes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="build_engine.py",
        description="Quantize and compile a bundle for a device, and prove the result.",
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument(
        "--backend",
        default="auto",
        choices=("auto", "onnxruntime", "openvino", *TENSORRT),
        help="auto: TensorRT where there is a GPU and it, else the fastest on this CPU",
    )
    parser.add_argument("--precision", default="int8", choices=tuple(PRECISIONS))
    parser.add_argument(
        "--data", type=Path, help="labelled images (default: data/ beside the bundle, as a run leaves it)"
    )
    int8 = parser.add_argument_group("INT8")
    int8.add_argument("--redo", action="store_true", help="quantize again although the bundle has it")
    int8.add_argument("--calibrators", default="min-max,percentile,entropy,mse", help="those to choose from")
    int8.add_argument("--granularity", default="layer", choices=("layer", "block"), help="of mixed precision")
    int8.add_argument("--sensitivity", action="store_true", help="rank the layers even if the budget is met")
    int8.add_argument(
        "--max-miou-drop", type=float, default=BUDGETS["int8"].max_miou_drop, help="fraction, default 0.005"
    )
    int8.add_argument(
        "--min-agreement", type=float, default=BUDGETS["int8"].min_agreement, help="fraction, default 0.98"
    )
    trt = parser.add_argument_group("TensorRT")
    trt.add_argument("--batch", default="1", help="one size, or smallest,best,largest (default 1)")
    trt.add_argument("--workspace", type=int, metavar="MB", help="largest scratch memory of a layer")
    trt.add_argument("--timing-cache", type=Path, help="file of measured kernels, read and updated")
    trt.add_argument(
        "--targets", default="", help="compute capabilities to compile for ahead of time (RTX): sm86,sm89"
    )
    trt.add_argument(
        "--hardware-compatible", action="store_true", help="for other GPUs too (Ampere and later)"
    )
    trt.add_argument("--version-compatible", action="store_true", help="for later versions of TensorRT too")
    trt.add_argument("--optimization-level", type=int, metavar="0..5", help="how long to search for kernels")
    trt.add_argument("--dla", type=int, metavar="CORE", help="run on this DLA core of a Jetson")
    trt.add_argument("--no-gpu-fallback", action="store_true", help="fail if the DLA cannot run all of it")
    return parser


if __name__ == "__main__":
    exit_with_one_line(lambda: main(sys.argv[1:]))
