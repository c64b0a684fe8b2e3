"""The command-line options that choose an engine, for every command that opens one."""

import argparse
from typing import Any

from deploy.backends.engine import BACKENDS, PRECISIONS


def add_engine_options(command: argparse.ArgumentParser) -> None:
    """Add `--backend`, `--precision` and the options of a GPU, as `deploy.load` takes them; see `engine_options`."""
    command.add_argument(
        "--backend", default="auto", metavar="NAME", help=f"{', '.join(BACKENDS)} (auto: the fastest here)"
    )
    command.add_argument(
        "--precision",
        default="auto",
        metavar="NAME",
        help=f"{', '.join(PRECISIONS)} (auto: the fastest that passed; of a named backend the lowest there is)",
    )
    gpu = command.add_argument_group("TensorRT")
    gpu.add_argument(
        "--device",
        type=int,
        default=0,
        metavar="N",
        help="number of the GPU, from 0 (CUDA_VISIBLE_DEVICES hides some)",
    )
    gpu.add_argument("--cuda-graph", action="store_true", help="start the whole network in one call")
    gpu.add_argument(
        "--trust-engines",
        action="store_true",
        help="load engines that were not built or trusted on this machine: they are native code",
    )
    gpu.add_argument(
        "--allow-host-code",
        action="store_true",
        help="load engines that carry code for the CPU (--version-compatible)",
    )


def engine_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `add_engine_options` added, as arguments of `deploy.load`."""
    return {name: getattr(arguments, name) for name in _NAMES}


_NAMES = ("backend", "precision", "device", "cuda_graph", "trust_engines", "allow_host_code")
