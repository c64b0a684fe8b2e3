"""What `deploy.build_engine` is asked for on its command line."""

import argparse
import math
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from deploy.backends.engine import CPU, TENSORRT
from deploy.build.steps import BUDGETS, MADE
from deploy.errors import UserError
from deploy.evaluation.receipt import Budget

INT8_FLAGS = ("calibrators", "granularity", "sensitivity", "float", "max_drop", "min_agreement")
TENSORRT_FLAGS = (
    "batch",
    "workspace",
    "timing_cache",
    "targets",
    "hardware_compatible",
    "version_compatible",
    "optimization_level",
    "dla",
    "no_gpu_fallback",
)
"""Options that have a meaning for some builds only. None or False: not given, so the default can be told apart."""


def parse(argv: Sequence[str], prog: str) -> argparse.Namespace:
    """The options. Raises `UserError` for a number out of range; argparse exits by itself for all else."""
    return _parser(prog).parse_args(argv)


def flags_given(options: argparse.Namespace, names: Iterable[str]) -> list[str]:
    """Those of the options that were given, as they are typed."""
    return [f"--{name.replace('_', '-')}" for name in names if _is_given(getattr(options, name))]


def budget_of(options: argparse.Namespace) -> Budget:
    """The budget of INT8, where it was not given that of `BUDGETS`."""
    default, drop, agreement = BUDGETS["int8"], options.max_drop, options.min_agreement
    return Budget(
        default.max_drop if drop is None else drop,
        default.min_agreement if agreement is None else agreement,
    )


def _is_given(value: object) -> bool:
    return value is not None and value is not False  # 0 is a value


def _fraction(flag: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise UserError(
            f"{flag} {text}: give a fraction from 0 to 1, such as {0.005 if 'drop' in flag else 0.98}"
        )
    return value


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _batch(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if len(sizes) == 1:
        sizes *= 3
    if len(sizes) != 3 or not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
        raise UserError(f"--batch {text}: give one size, or smallest,best,largest such as 1,4,8")
    return sizes


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description="Quantize and compile a bundle for a device, and prove the result."
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument(
        "--backend",
        default="auto",
        choices=("auto", *CPU, *TENSORRT),
        help="auto: TensorRT where there is a GPU and it, else the fastest on this CPU",
    )
    parser.add_argument("--precision", default="int8", choices=tuple(MADE))
    parser.add_argument(
        "--data", type=Path, help="labeled images (default: data/ beside the bundle, as a run leaves it)"
    )
    parser.add_argument(
        "--redo", action="store_true", help="make the INT8 or FP16 model again although the bundle has it"
    )
    _add_int8(parser.add_argument_group("INT8"))
    _add_tensorrt(parser.add_argument_group("TensorRT"))
    return parser


def _add_int8(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--calibrators", type=_names, help="those to choose from (min-max,percentile,entropy,mse)")
    add("--granularity", choices=("layer", "block"), help="of mixed precision (layer)")
    add("--sensitivity", action="store_true", help="rank the layers even if the budget is met")
    add(
        "--float",
        type=_names,
        metavar="NAME,NAME",
        help="layers that stay in float, as --sensitivity names them, or first, last",
    )
    for name, default in msgspec.structs.asdict(BUDGETS["int8"]).items():
        flag = f"--{name.replace('_', '-')}"
        add(flag, type=partial(_fraction, flag), metavar="FRACTION", help=f"default {default}")


def _add_tensorrt(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--batch", type=_batch, help="one size, or smallest,best,largest (default 1)")
    add("--workspace", type=int, metavar="MB", help="largest scratch memory of a layer")
    add("--timing-cache", type=Path, help="file of measured kernels, read and updated")
    add("--targets", help="compute capabilities to compile for ahead of time (RTX): sm86,sm89")
    add("--hardware-compatible", choices=("ampere+", "same-cc"), help="for other GPUs too")
    add("--version-compatible", action="store_true", help="for later versions of TensorRT too")
    add("--optimization-level", type=int, metavar="0..5", help="how long to search for kernels")
    add("--dla", type=int, metavar="CORE", help="run on this DLA core of a Jetson")
    add("--no-gpu-fallback", action="store_true", help="fail if the DLA cannot run all of it")
