"""Quantize and compile a bundle for a device, and prove the result: `python deploy/build_engine.py BUNDLE`."""

import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository root, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import os
from collections.abc import Collection, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from deploy.backends.engine import TENSORRT
from deploy.build.options import INT8_FLAGS, TENSORRT_FLAGS, budget_of, flags_given, parse
from deploy.build.steps import (
    MADE,
    NEEDED,
    REPLACED,
    Int8Options,
    compare_golden,
    make_fp16,
    make_int8,
    prove,
)
from deploy.bundle.bundle_files import read_manifest, verify_files
from deploy.errors import UserError, exit_with_one_line, warnings_as_lines
from deploy.evaluation.labeled_data import data_folder, require_data
from deploy.evaluation.receipt import require_passed
from deploy.tasks.registry import task_of

if TYPE_CHECKING:
    from deploy.backends.tensorrt_gpu.builder import BuildOptions


@warnings_as_lines()
def main(argv: Sequence[str], prog: str = "build_engine.py") -> int:
    """Run the command and return its exit code. What can be refused is refused before anything is made.

    Raises:
        UserError: what the user can mend.
        GateFailed: a hop over its budget.
    """
    options = parse(argv, prog)
    bundle, precision = options.bundle.resolve(), options.precision
    manifest = read_manifest(bundle)
    backend, why = choose_backend(options.backend)
    print(f"{manifest.name}: {precision} for {backend}{why}")
    _check_flags(options, backend)
    compiler = _compiler_options(options, backend) if backend in TENSORRT else None
    makes = _makes(options, manifest.files)
    data = _data(options, bundle, makes, task_of(manifest).truth)
    _check_machine(backend, compiler)
    if makes:
        _check_can_make(bundle, precision)
    verify_files(bundle, manifest, REPLACED[precision] if makes else ())

    if makes and data and precision == "int8":
        make_int8(bundle, data, _int8_options(options))
    elif makes and data:
        make_fp16(bundle, data)
    engine, runs_here = _compile(bundle, compiler) if compiler else (None, True)
    if data:
        budget = budget_of(options) if precision == "int8" else None
        receipt = prove(bundle, data, backend, precision, engine=engine, runs_here=runs_here, budget=budget)
    else:
        receipt = None
        print(f"No labeled data in {data_folder(bundle)}: accuracy was not measured (--data FOLDER does).")
        if runs_here:
            compare_golden(bundle, backend, precision, engine=engine)
    if not runs_here:
        print(
            "The engine is for another machine: copy the bundle there and run `edgedistill verify` and `predict`."
        )
    if receipt:
        require_passed(receipt)
    return 0


def choose_backend(asked: str) -> tuple[str, str]:
    """The backend to build for, and why in words: TensorRT where this machine has a GPU and it, else the CPU's."""
    if asked != "auto":
        return asked, ""
    from deploy.backends.tensorrt_gpu.cuda import probe

    if probe() is None:
        return (
            "auto",
            " on the CPU (no NVIDIA GPU here; --backend tensorrt-rtx compiles for one all the same)",
        )
    for backend, module in TENSORRT.items():
        if find_spec(module):
            return backend, ""
    return "auto", " on the CPU (there is a GPU, but no TensorRT: pip install 'edgedistill[tensorrt]')"


def _check_flags(options: argparse.Namespace, backend: str) -> None:
    """Refuse flags that would be ignored."""
    if backend not in TENSORRT and (flags := flags_given(options, TENSORRT_FLAGS)):
        raise UserError(
            f"{flags[0]}: is for TensorRT, but this builds for the CPU; leave it out,"
            " or give --backend tensorrt or tensorrt-rtx"
        )
    if options.precision != "int8" and (flags := flags_given(options, INT8_FLAGS)):
        raise UserError(f"{flags[0]}: is for INT8, not --precision {options.precision}; leave it out")
    if options.redo and options.precision == "fp32":
        raise UserError("--redo: there is nothing to make again in fp32, the bundle was exported with it")


def _makes(options: argparse.Namespace, files: Collection[str]) -> bool:
    """Whether the ONNX of the precision is to be made: it is missing, or asked for in another way."""
    if options.redo or not set(MADE[options.precision]) <= set(files):
        return True
    asked = flags_given(options, ("sensitivity", "calibrators", "granularity", "float"))
    if asked:
        print(f"{asked[0]}: quantizing again, although the bundle has an INT8 model")
    return bool(asked)


def _data(options: argparse.Namespace, bundle: Path, makes: bool, truth: str) -> Path | None:
    """The folder of labeled images, which has all that is needed; None where none was named, there, or needed."""
    data = (options.data or data_folder(bundle)).resolve()
    if options.data is None and not makes and not data.exists():
        return None
    require_data(data, *(NEEDED[options.precision] if makes else ("test",)), truth=truth)
    return data


def _check_machine(backend: str, compiler: "BuildOptions | None") -> None:
    """Refuse a backend that is not installed, or that this machine or its GPU cannot do."""
    if compiler:
        from deploy.backends.tensorrt_gpu.builder import check_machine

        check_machine(compiler)
    elif backend == "openvino":
        from deploy.backends.openvino_cpu import import_openvino

        import_openvino()


def _check_can_make(bundle: Path, precision: str) -> None:
    if find_spec("onnx") is None:
        raise UserError(f"making the {precision} model needs onnx: pip install 'edgedistill[quantize]'")
    for folder in (bundle, bundle.parent):  # the new bundle is made beside the old one
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(f"{folder}: cannot be written; copy the bundle to a folder that can")


def _compiler_options(options: argparse.Namespace, backend: str) -> "BuildOptions":
    from deploy.backends.tensorrt_gpu.builder import BuildOptions

    return BuildOptions(
        backend=backend,  # pyright: ignore[reportArgumentType] - choices of the parser
        precision=options.precision,
        batch=options.batch or (1, 1, 1),
        workspace_mb=options.workspace,
        timing_cache=options.timing_cache and options.timing_cache.resolve(),
        targets=tuple(filter(None, (options.targets or "").split(","))),
        hardware_compatible=options.hardware_compatible or "",
        version_compatible=options.version_compatible,
        dla_core=options.dla,
        allow_gpu_fallback=not options.no_gpu_fallback,
        optimization_level=options.optimization_level,
    )


def _compile(bundle: Path, compiler: "BuildOptions") -> tuple[Path, bool]:
    """Build the engine, or find it; its file, and whether it runs on this machine."""
    from deploy.backends.tensorrt_gpu.builder import build_engine
    from deploy.backends.tensorrt_gpu.compatibility import fits_gpu
    from deploy.backends.tensorrt_gpu.cuda import probe

    built, gpu = build_engine(bundle, compiler, progress=sys.stderr.isatty()), probe()
    return built.path, gpu is not None and fits_gpu(built.sidecar, gpu)


def _int8_options(options: argparse.Namespace) -> Int8Options:
    defaults = Int8Options()
    return Int8Options(
        calibrators=options.calibrators or defaults.calibrators,
        granularity=options.granularity or defaults.granularity,
        sensitivity=options.sensitivity,
        keep_float=options.float or (),
        budget=budget_of(options),
    )


if __name__ == "__main__":
    exit_with_one_line(lambda: main(sys.argv[1:]))
