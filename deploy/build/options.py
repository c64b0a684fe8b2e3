"""The command line of `edgedistill build`: its parser, and what was given on it."""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from deploy.backends.engine import CPU, ORT_GPU, TENSORRT
from deploy.build.made_files import MADE
from deploy.command_parser import CommandParser
from deploy.errors import UserError
from deploy.evaluation.receipt import INT8_BUDGET, Budget
from deploy.files.json_output import add_json
from deploy.quantize.calibrators import CALIBRATORS
from deploy.quantize.options import GRANULARITIES, Form, Int8Options, Precision, fp8_options


@dataclass(frozen=True)
class Int8Flags:
    """Options of the INT8 model. None, or False for a switch: not given."""

    calibrators: tuple[str, ...] | None
    granularity: str | None
    sensitivity: bool
    keep_float: tuple[str, ...] | None
    max_drop: float | None
    min_agreement: float | None

    def given(self) -> list[str]:
        """The options that were given, as they are typed."""
        return _given(
            {
                "--calibrators": self.calibrators,
                "--granularity": self.granularity,
                "--sensitivity": self.sensitivity,
                "--float": self.keep_float,
                "--max-drop": self.max_drop,
                "--min-agreement": self.min_agreement,
            }
        )

    def remake(self) -> list[str]:
        """The given options that need a new model even if the bundle has one."""
        return _given(
            {
                "--sensitivity": self.sensitivity,
                "--calibrators": self.calibrators,
                "--granularity": self.granularity,
                "--float": self.keep_float,
            }
        )

    def budget(self, default: Budget) -> Budget:
        """The budget; of limits that were not given, the `default`, which is that of the bundle's task."""
        return Budget(
            default.max_drop if self.max_drop is None else self.max_drop,
            default.min_agreement if self.min_agreement is None else self.min_agreement,
        )

    def options(self, budget: Budget, form: Form, precision: Precision = "int8") -> Int8Options:
        """The options of the quantization, with defaults for those that were not given."""
        defaults = fp8_options(budget) if precision == "fp8" else Int8Options()
        return Int8Options(
            budget=budget,
            calibrators=self.calibrators or defaults.calibrators,
            granularity=self.granularity or defaults.granularity,
            sensitivity=self.sensitivity,
            keep_float=self.keep_float or defaults.keep_float,
            form=form,
            precision=precision,
        )


@dataclass(frozen=True)
class TensorRTFlags:
    """Options of compilation with TensorRT. None, or False for a switch: not given."""

    batch: tuple[int, int, int] | None
    """Smallest, best and largest batch."""
    workspace: int | None
    """MB."""
    timing_cache: Path | None
    targets: str | None
    """Compute capabilities, separated by commas."""
    hardware_compatible: Literal["ampere+", "same-cc"] | None
    version_compatible: bool
    optimization_level: int | None
    dla: int | None
    """Core of the DLA."""
    no_gpu_fallback: bool
    dla_pool_mib: str | None
    device: int | None
    """Number of the GPU."""
    cuda_graph: bool
    no_tf32: bool
    locate: bool

    def given(self) -> list[str]:
        """The options that were given, as they are typed."""
        return _given(
            {
                "--batch": self.batch,
                "--workspace": self.workspace,
                "--timing-cache": self.timing_cache,
                "--targets": self.targets,
                "--hardware-compatible": self.hardware_compatible,
                "--version-compatible": self.version_compatible,
                "--optimization-level": self.optimization_level,
                "--dla": self.dla,
                "--no-gpu-fallback": self.no_gpu_fallback,
                "--dla-pool-mib": self.dla_pool_mib,
                "--device": self.device,
                "--cuda-graph": self.cuda_graph,
                "--no-tf32": self.no_tf32,
                "--locate": self.locate,
            }
        )


@dataclass(frozen=True)
class BuildCommand:
    """What was given on the command line."""

    bundle: Path
    backend: str
    precision: Literal["fp32", "fp16", "int8", "fp8"]
    data: Path | None
    redo: bool
    int8: Int8Flags
    tensorrt: TensorRTFlags
    json: bool = False
    """Print the receipt as JSON."""


def parse(argv: Sequence[str], prog: str) -> BuildCommand:
    """Parse the command line; argparse itself exits for invalid options.

    Raises:
        UserError: a value out of range.
    """
    line = _parser(prog).parse_args(argv)
    if line.backend in ORT_GPU:
        raise UserError(
            f"--backend {line.backend}: needs no build, it runs the bundle's ONNX files (--backend onnxruntime adds"
            f" FP16 and INT8): edgedistill verify {line.bundle} --backend {line.backend}"
        )
    return BuildCommand(
        bundle=line.bundle,
        backend=line.backend,
        precision=line.precision,
        data=line.data,
        redo=line.redo,
        int8=Int8Flags(
            calibrators=line.calibrators,
            granularity=line.granularity,
            sensitivity=line.sensitivity,
            keep_float=line.float,
            max_drop=line.max_drop,
            min_agreement=line.min_agreement,
        ),
        tensorrt=TensorRTFlags(
            batch=line.batch,
            workspace=line.workspace,
            timing_cache=line.timing_cache,
            targets=line.targets,
            hardware_compatible=line.hardware_compatible,
            version_compatible=line.version_compatible,
            optimization_level=line.optimization_level,
            dla=line.dla,
            no_gpu_fallback=line.no_gpu_fallback,
            dla_pool_mib=line.dla_pool_mib,
            device=line.device,
            cuda_graph=line.cuda_graph,
            no_tf32=line.no_tf32,
            locate=line.locate,
        ),
        json=line.json,
    )


def option_names() -> list[str]:
    """Names of all options as Python names, such as "max_drop" for --max-drop."""
    return [name for name in vars(_parser("").parse_args(["BUNDLE"])) if name not in ("bundle", "json")]


def _given(flags: Mapping[str, object]) -> list[str]:
    """The flags with a value; 0 is one."""
    return [flag for flag, value in flags.items() if value is not None and value is not False]


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


def _batch(text: str) -> tuple[int, int, int]:
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if len(sizes) == 1:
        sizes *= 3
    if len(sizes) != 3 or not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
        raise UserError(f"--batch {text}: give one size, or smallest,best,largest such as 1,4,8")
    smallest, best, largest = sizes
    return smallest, best, largest


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = CommandParser(
        prog=prog, description="Quantize and compile a bundle for a device, and verify the result."
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument(
        "--backend",
        default="auto",
        choices=("auto", *CPU, *TENSORRT, *ORT_GPU),
        help="auto: TensorRT if it is installed and there is a GPU, else the fastest on this CPU;"
        f" {' and '.join(ORT_GPU)} run the bundle as it is, without a build",
    )
    parser.add_argument("--precision", default="int8", choices=tuple(MADE))
    parser.add_argument(
        "--data", type=Path, help="labeled images (default: data/ beside the bundle, where a run writes them)"
    )
    parser.add_argument(
        "--redo", action="store_true", help="make the INT8 or FP16 model again even if the bundle has it"
    )
    add_json(parser)
    _add_int8(parser.add_argument_group("INT8"))
    _add_tensorrt(parser.add_argument_group("TensorRT"))
    return parser


def _add_int8(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--calibrators", type=_names, help=f"those to choose from (default: {','.join(CALIBRATORS)})")
    add("--granularity", choices=GRANULARITIES, help="unit of mixed precision (default: layer)")
    add("--sensitivity", action="store_true", help="rank the layers even if the budget is met")
    add(
        "--float",
        type=_names,
        metavar="NAME,NAME",
        help="layers that stay in float, by their names in the ranking of --sensitivity, or first, last",
    )
    for flag, default in (
        ("--max-drop", INT8_BUDGET.max_drop),
        ("--min-agreement", INT8_BUDGET.min_agreement),
    ):
        add(
            flag,
            type=partial(_fraction, flag),
            metavar="FRACTION",
            help=f"default {default}; a task may have its own",
        )


def _add_tensorrt(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--batch", type=_batch, help="one size, or smallest,best,largest (default 1)")
    add("--workspace", type=int, metavar="MB", help="limit of scratch memory for a layer")
    add("--timing-cache", type=Path, help="file of kernel timings, read and updated")
    add("--targets", help="compute capabilities to compile for ahead of time (RTX), such as sm86,sm89")
    add(
        "--hardware-compatible", choices=("ampere+", "same-cc"), help="an engine that also runs on other GPUs"
    )
    add(
        "--version-compatible",
        action="store_true",
        help="an engine that also runs with later versions of TensorRT",
    )
    add("--optimization-level", type=int, metavar="0..5", help="how thoroughly to search for kernels")
    add("--dla", type=int, metavar="CORE", help="run on this DLA core of a Jetson")
    add(
        "--no-gpu-fallback",
        action="store_true",
        help="on the DLA alone: fail if it cannot run the network between normalization and labels",
    )
    add("--dla-pool-mib", metavar="sram=1,local=1024,global=512", help="memory of the DLA, in powers of two")
    add("--no-tf32", action="store_true", help="fp32 in full, not in TF32 as GPUs from Ampere on compute it")
    add("--device", type=int, metavar="N", help="number of the GPU, from 0 (CUDA_VISIBLE_DEVICES hides some)")
    add("--cuda-graph", action="store_true", help="verify the engine as load(…, cuda_graph=True) runs it")
    add(
        "--locate",
        action="store_true",
        help="find the first tensor that differs from ONNX Runtime's, by some more compilations, if the gate fails",
    )
