"""`edgedistill build BUNDLE`: quantize and compile a bundle for a device, and verify the result.

The same command as a script: `python deploy/build_engine.py BUNDLE`.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository root, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import os
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING

from deploy.backends.engine import TENSORRT
from deploy.build.engine_choices import compiler_options, gpu_options
from deploy.build.golden_check import compare_golden
from deploy.build.locate import locate_in_engine
from deploy.build.made_files import FORMS, MADE, NEEDED, REPLACED
from deploy.build.options import BuildCommand, parse
from deploy.build.steps import (
    make_fp16,
    make_quantized,
    verify_build,
)
from deploy.bundle.bundle_files import read_manifest, verify_files
from deploy.errors import GateFailed, UserError, exit_with_one_line, warnings_as_lines
from deploy.evaluation.labeled_data import data_folder, require_data
from deploy.evaluation.receipt import Budget, Receipt
from deploy.files.json_output import print_json, words_to_stderr
from deploy.heartbeat import working
from deploy.tasks.registry import task_of
from deploy.verbosity import take_options

if TYPE_CHECKING:
    from deploy.backends.tensorrt_gpu.builder import BuildOptions


_GIVE_DATA = "give a folder with --data FOLDER."
_ELSEWHERE = (
    "The engine is for another machine: copy the bundle there, signed (edgedistill sign) or trusted there (edgedistill"
    " trust), and run `edgedistill verify BUNDLE`."
)


@warnings_as_lines()
def main(argv: Sequence[str], prog: str = "edgedistill build") -> int:
    """Run the command and return its exit code.

    Raises:
        UserError: an error that the user can fix.
        GateFailed: a hop over its budget.
    """
    command = parse(argv, prog)
    with words_to_stderr(command.json):
        receipt = _build(command)
    if command.json:
        print_json({"bundle": command.bundle, "precision": command.precision, "receipt": receipt})
    return 0


def _build(command: BuildCommand) -> Receipt | None:
    """Make and measure what is asked for; the receipt, None without labeled data.

    All checks that can fail early run before anything is made.
    """
    bundle, precision = command.bundle.resolve(), command.precision
    manifest = read_manifest(bundle)
    backend, why = choose_backend(command.backend, command.tensorrt.device or 0)
    print(f"{manifest.name}: {precision} for {backend}{why}")
    _check_flags(command, backend)
    compiler = compiler_options(command, backend) if backend in TENSORRT else None
    gpu = gpu_options(command)
    makes = _makes(command, manifest.files)
    task = task_of(manifest)
    budget = command.int8.budget(task.int8_budget)
    data = _data(command, bundle, makes, task.truth)
    _check_machine(bundle, backend, compiler)
    if makes or command.tensorrt.locate:
        _check_can_make(bundle, precision, makes)
    verify_files(bundle, manifest, REPLACED[precision] if makes else ())

    if makes and data:
        _make(command, bundle, data, budget, backend)
    engine, runs_here = _compile(bundle, compiler) if compiler else (None, True)
    if not runs_here:
        print(_ELSEWHERE)
    receipt = None
    try:
        if data:
            limits = budget if precision in FORMS else None
            receipt = verify_build(
                bundle, data, backend, precision, engine=engine, runs_here=runs_here, budget=limits, gpu=gpu
            )
            if not receipt.passed:  # the table above has the reasons
                over = f"{bundle.name}: over the budget: {', '.join(receipt.failed)}"
                raise GateFailed(f"{over}; {_remedy(precision, makes, manifest.threshold)}")
        else:
            print(f"No labeled data in {data_folder(bundle)}: accuracy was not measured; {_GIVE_DATA}")
            if runs_here:
                compare_golden(bundle, backend, precision, engine=engine, gpu=gpu)
    except GateFailed as error:
        if not compiler or not runs_here:
            raise
        if not command.tensorrt.locate:
            raise GateFailed(f"{error}; --locate finds the first tensor that differs") from error
        _locate(bundle, compiler, command)
        raise
    return receipt


def _locate(bundle: Path, compiler: "BuildOptions", command: BuildCommand) -> None:
    """Find the first tensor that differs, as far as that is possible: the gate has failed in any case."""
    try:
        locate_in_engine(bundle, compiler, gpu_options(command))
    except UserError as reason:
        print(f"--locate: {reason}")


def _make(command: BuildCommand, bundle: Path, data: Path, budget: Budget, backend: str) -> None:
    """Make the ONNX file of the precision."""
    if command.precision in ("int8", "fp8"):
        form = "tensorrt" if backend in TENSORRT else "cpu"
        make_quantized(bundle, data, command.int8.options(budget, form, command.precision))
        _tell_of_little_int8(bundle / FORMS[command.precision][form], backend)
    else:
        make_fp16(bundle, data)


def _tell_of_little_int8(model: Path, backend: str) -> None:
    from deploy.lint.coverage import little_int8  # optional dependency: onnx

    target = {"tensorrt": "tensorrt-10", "auto": "onnxruntime"}.get(backend, backend)
    if warning := little_int8(model.read_bytes(), target):
        print(f"{model.name}: {warning}")


def _remedy(precision: str, made_now: bool, threshold: float | None) -> str:
    """What to do about a hop over its budget."""
    if precision not in FORMS:
        full = " with --no-tf32" if precision == "fp32" else ""
        return (
            f"the engine does not compute what the bundle was measured with; rebuild it{full},"
            " or use another backend"
        )
    limits = "--max-drop and --min-agreement set the budget"
    if made_now:
        return f"{limits}, --float keeps layers out of {precision.upper()}"
    if threshold is None:
        return f"--redo quantizes again; {limits}"
    return f"the bundle has a threshold, and --redo quantizes for the labels that it decides; {limits}"


def choose_backend(asked: str, device: int = 0) -> tuple[str, str]:
    """Choose the backend to build for.

    Args:
        asked: name of a backend, or "auto": TensorRT if it is installed and there is a GPU, else the CPU.
        device: number of the GPU.

    Returns:
        The backend, and the reason to print after its name; "" if it needs none.
    """
    if asked != "auto":
        return asked, ""
    # start-up time: only "auto" looks for a GPU
    from deploy.backends.tensorrt_gpu.cuda import why_not
    from deploy.backends.tensorrt_gpu.packages import how_to_install
    from deploy.backends.tensorrt_gpu.signs import look

    signs = look()
    if why := why_not(device):
        reason = f"no usable NVIDIA GPU: {why}" if signs.any else "no NVIDIA GPU here"
        return "auto", f" on the CPU ({reason}; --backend tensorrt-rtx can still compile for one)"
    for backend, module in TENSORRT.items():
        if find_spec(module):
            return backend, ""
    return "auto", f" on the CPU (there is a GPU, but no TensorRT: {how_to_install('tensorrt', signs)})"


def _check_flags(command: BuildCommand, backend: str) -> None:
    """Refuse options that would be ignored."""
    if backend not in TENSORRT and (flags := command.tensorrt.given()):
        raise UserError(
            f"{flags[0]}: is for TensorRT, but this builds for the CPU; leave it out,"
            " or give --backend tensorrt or tensorrt-rtx"
        )
    if command.precision not in FORMS and (flags := command.int8.given()):
        raise UserError(f"{flags[0]}: is for INT8, not --precision {command.precision}; leave it out")
    if command.precision == "fp8" and backend not in TENSORRT:
        raise UserError("--precision fp8: no CPU computes in it; give --backend tensorrt or tensorrt-rtx")
    if command.tensorrt.locate and command.tensorrt.no_gpu_fallback:
        raise UserError(
            "--locate: compares whole networks, and a DLA alone runs only the core; leave one out"
        )
    if command.tensorrt.locate and command.tensorrt.targets:
        raise UserError("--locate: runs the engine on this machine's GPU; leave out --targets")
    if command.redo and command.precision == "fp32":
        raise UserError("--redo: there is nothing to make again in fp32, the bundle was exported with it")


def _makes(command: BuildCommand, files: Collection[str]) -> bool:
    """Whether to make the ONNX of the precision: it is missing, or options ask for another one."""
    if command.redo or not set(MADE[command.precision]) <= set(files):
        return True
    asked = command.int8.remake()
    if asked:
        print(f"{asked[0]}: quantizing again, although the bundle has an INT8 model")
    return bool(asked)


def _data(command: BuildCommand, bundle: Path, makes: bool, truth: str) -> Path | None:
    """The folder of labeled images, checked; None if it was not given, is not needed and its default does not exist."""
    data = (command.data or data_folder(bundle)).resolve()
    if command.data is None and not makes and not data.exists():
        return None
    require_data(data, *(NEEDED[command.precision] if makes else ("test",)), truth=truth)
    return data


def _check_machine(bundle: Path, backend: str, compiler: "BuildOptions | None") -> None:
    """Refuse a backend that is not installed or does not run on this machine, its GPU or its DLA."""
    if compiler:
        _core(bundle, compiler)  # refuses early
        from deploy.backends.tensorrt_gpu.builder import check_machine  # start-up time: only for TensorRT

        check_machine(compiler)
    elif backend == "openvino":
        from deploy.backends.openvino_cpu import import_openvino  # optional dependency

        import_openvino()


def _core(bundle: Path, compiler: "BuildOptions") -> bytes | None:
    """The part of the network that a DLA runs alone; None where a GPU is beside it."""
    if not compiler.dla_alone:
        return None
    if find_spec("onnx") is None:
        raise UserError("--no-gpu-fallback: needs onnx: pip install 'edgedistill[quantize]'")
    from deploy.lint.dla_alone import core_for_dla  # optional dependency: onnx

    return core_for_dla(bundle, compiler)


def _check_can_make(bundle: Path, precision: str, makes: bool) -> None:
    """Refuse to make or mark a model without onnx, or to make it in a folder that cannot be written."""
    if find_spec("onnx") is None:
        what = f"making the {precision} model" if makes else "--locate"
        raise UserError(f"{what} needs onnx: pip install 'edgedistill[quantize]'")
    if not makes:
        return
    for folder in (bundle, bundle.parent):  # the new bundle is written beside the old one
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(f"{folder}: cannot be written; copy the bundle to a writable folder")


def _compile(bundle: Path, compiler: "BuildOptions") -> tuple[Path, bool]:
    """Build the engine, or find it in place.

    Returns:
        The file of the engine, and whether it runs on this machine.
    """
    # start-up time: only for TensorRT
    from deploy.backends.tensorrt_gpu.builder import build_engine
    from deploy.backends.tensorrt_gpu.compatibility import fits_gpu
    from deploy.backends.tensorrt_gpu.cuda import probe

    with nullcontext() if sys.stderr.isatty() else working("compiling"):  # it draws its own bar
        core = _core(bundle, compiler)
        built = build_engine(bundle, compiler, core=core, progress=sys.stderr.isatty())
    gpu = probe(compiler.device)
    return built.path, gpu is not None and fits_gpu(built.sidecar, gpu)


if __name__ == "__main__":
    exit_with_one_line(lambda: main(take_options(sys.argv[1:])))
