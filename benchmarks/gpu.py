"""Check and time TensorRT on this machine's GPU: build, run, compare with the CPU, measure, break on purpose.

    python benchmarks/gpu.py runs/quick/student.bundle --json gpu.json [--profile]

Latency is that of one run at a time, throughput that of several streams with work queued ahead on each; both come with
the energy of a frame, clocks and temperature, where the GPU or the Jetson shows them. `--profile` times each layer.

Without a GPU or without TensorRT it prints `SKIPPED: reason` and exits with 0. Engines stay in the bundle's `engines/`.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: imports start at the repository, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from importlib.util import find_spec
from itertools import product

from benchmarks.gpu_engine import Row, measure_engine
from benchmarks.gpu_refusals import refusals
from benchmarks.gpu_tables import power_lines, tables
from deploy.backends.engine import TENSORRT, Engine
from deploy.backends.gpu_options import GpuOptions
from deploy.backends.open import open_engine
from deploy.backends.tensorrt_gpu.cuda import open_cuda
from deploy.backends.tensorrt_gpu.engine import open_trt
from deploy.backends.tensorrt_gpu.packages import how_to_install
from deploy.backends.tensorrt_gpu.signs import look
from deploy.build.steps import BUDGETS
from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.manifest import INT8_CPU
from deploy.errors import GateFailed, UserError, exit_with_one_line
from deploy.evaluation.labeled_data import data_folder, read_info
from deploy.evaluation.receipt import Budget, Hop, Receipt, run_hops, table
from deploy.files.atomic import write_json
from deploy.measure import machine
from deploy.measure.energy import Meter
from deploy.tasks.registry import model_of, task_of


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all checks, print tables, write JSON.

    Args:
        arguments: arguments of the command line; None for those of the process.

    Raises:
        GateFailed: a check failed; the message names all that did.
    """
    options = _parse(arguments)
    try:
        cuda, backend = open_cuda(options.provider, options.device), _installed(options.backend)
    except UserError as reason:
        print(f"SKIPPED: {reason}")
        return
    bundle, here, meter = options.bundle, machine.describe(), Meter(cuda.device)
    power = {"before": meter.state(), "why_not": meter.why_not}
    print(f"{machine.summary(here)}\n{cuda.device}\n{backend}, bundle {bundle}\n{power_lines(power)}\n")
    rows, failures = list[Row](), list[str]()
    report: dict[str, object] = {"machine": here, "gpu": cuda.device, "power": power}
    report |= {"engines": rows, "failures": failures}
    for precision, batch in product(options.precision.split(","), options.batch):
        try:
            rows.append(measure_engine(backend, precision, batch, cuda, meter, options))
        except UserError as error:
            failures.append(str(error))
        write_json(options.json, report)  # keep this result even if a later step fails
    if rows:
        power["after"] = meter.state()
        print(f"\n{tables(rows)}\n")
        failures += [f"{row.engine}: threads disagree" for row in rows if not row.threads_agree]
        single = [row for row in rows if row.sidecar.batch[0] == min(options.batch)]
        report["receipt"] = receipt = _receipt(single, options)
        failures += [reason for hop in receipt.hops for reason in hop.reasons] if receipt else []
        write_json(options.json, report)  # opening a broken engine could end the process
        report["refusals"] = errors = dict(refusals(rows[0], options))
        print("\n".join(f"{case}: {error or 'OPENED'}" for case, error in errors.items()))
        failures += [f"{case} was opened" for case, error in errors.items() if not error]
    write_json(options.json, report)
    print(f"\nwritten to {options.json}")
    if failures:
        raise GateFailed("; ".join(failures))


def _installed(asked: str) -> str:
    """Find an installed backend without importing it.

    Args:
        asked: a backend, or "auto" for the first one installed.

    Raises:
        UserError: none of them is installed.
    """
    backends = list(TENSORRT) if asked == "auto" else [asked]
    for backend in backends:
        if find_spec(TENSORRT[backend]):
            return backend
    how = " or ".join(how_to_install(backend, look()) for backend in backends)
    raise UserError(f"{' and '.join(backends)} not installed: {how}")


def _receipt(rows: Sequence[Row], options: argparse.Namespace) -> Receipt | None:
    """Compare the engines with the CPU runtime on the labeled test images.

    The order is fp32 on the CPU, fp32 and fp16 on the GPU, INT8 on the CPU, INT8 on the GPU: each is compared with the
    one before it, and with the first.

    Returns:
        The receipt, or None if there are no labeled test images.
    """
    bundle, data = options.bundle, options.data or data_folder(options.bundle)
    if not (data / "test").is_dir():
        print(f"{data / 'test'}: no such folder, so accuracy is not measured\n")
        return None
    manifest = read_manifest(bundle)

    def hop(engine: Engine, size: int, budget: Budget | None = None) -> Hop:
        return Hop(engine.name, model_of(manifest, engine), size, budget)

    def on_cpu(precision: str, budget: Budget | None = None) -> Hop:
        engine = open_engine(bundle, "onnxruntime", precision=precision)
        assert engine.file
        return hop(engine, engine.file.stat().st_size, budget)

    task = task_of(manifest)
    budgets = BUDGETS | {"int8": task.int8_budget}
    with ExitStack() as engines:
        hops = [on_cpu("fp32")]
        for row in rows:
            side = row.sidecar
            if side.precision == "int8" and INT8_CPU in manifest.files:
                hops.append(on_cpu("int8", budgets["int8"]))
            gpu = GpuOptions(device=options.device)
            opened = open_trt(
                bundle, side.backend, engine=Path(row.file), provider=options.provider, options=gpu
            )
            hops.append(hop(engines.enter_context(closing(opened)), side.bytes, budgets[side.precision]))
        info, names = read_info(data), [one.name for one in manifest.classes]
        receipt = run_hops(
            hops,
            task.read(data / "test", manifest),
            lambda: task.scorer(names),
            metric=task.metric,
            dataset=info.dataset,
            split=info.test,
        )
    print(f"{table(receipt)}\n")
    return receipt


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks/gpu.py", description="Check and time TensorRT on this machine's GPU."
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder written by the export")
    parser.add_argument("--backend", default="auto", choices=("auto", *TENSORRT))
    parser.add_argument(
        "--provider", default="auto", help="Python binding of CUDA: auto, cuda-bindings or pycuda"
    )
    parser.add_argument("--precision", default="fp32,fp16,int8", help="(default %(default)s)")
    parser.add_argument(
        "--data",
        type=Path,
        help="folder with test/images and test/masks (default: data/ beside BUNDLE)",
    )
    _add_counts(parser)
    parser.add_argument("--device", type=int, default=0, metavar="N", help="number of the GPU (default 0)")
    parser.add_argument("--profile", action="store_true", help="time each layer, by TensorRT's IProfiler")
    parser.add_argument(
        "--json", type=Path, default=Path("runs/gpu.json"), help="report (default %(default)s)"
    )
    options = parser.parse_args(arguments)
    if options.runs < 1 or options.warmup < 0 or not 0 <= options.seconds <= 3600:
        raise UserError("give at least --runs 1, --warmup 0 and --seconds 0")
    return options


def _add_counts(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--batch",
        type=partial(_sizes, "--batch"),
        default=(1, 8),
        metavar="N,N",
        help="batch sizes; an engine is built for each (default 1,8)",
    )
    add(
        "--runs",
        type=int,
        default=500,
        help="timed runs of each engine, batch and mode (default %(default)s)",
    )
    add("--warmup", type=int, default=50, help="warm-up runs, not counted (default %(default)s)")
    add(
        "--streams",
        type=partial(_sizes, "--streams"),
        default=(1, 2, 4),
        metavar="N,N",
        help="numbers of streams for the throughput (default 1,2,4)",
    )
    add(
        "--seconds",
        type=float,
        default=2.0,
        help="least time for each throughput (default %(default)s; power is read 20 times a second)",
    )


def _sizes(flag: str, text: str) -> tuple[int, ...]:
    sizes = {int(part) if part.strip().isdigit() else 0 for part in text.split(",")}
    if min(sizes) < 1:
        raise UserError(f"{flag} {text}: give numbers from 1, such as 1,8")
    return tuple(sorted(sizes))


if __name__ == "__main__":
    exit_with_one_line(main)
