"""What do faster gradients of depthwise convolutions save? `python benchmarks/depthwise.py [NETWORK …]`.

Times a training step (forward and backward pass of one batch, without loading and optimizer) of each network with the
gradients of `distill.training.depthwise` and with torch's own, in turns, in float32 and bfloat16. On a CPU.

Prints images a second and writes JSON with a description of the machine (default: `runs/depthwise.json`).
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository root, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmarks.turns import in_turns
from deploy.errors import UserError, exit_with_one_line
from deploy.files.atomic import write_json
from deploy.measure.machine import describe, summary
from deploy.table import format_table

if TYPE_CHECKING:
    import torch
    from torch import nn


NETWORKS = ("pspnet/tf_efficientnet_lite2", "pspnet/tf_efficientnet_lite0", "pspnet/mobilenetv3_large_100")
HEADER = ("network", "type", "torch's own, img/s", "here, img/s", "faster", "p90/median")
CLASSES = 11


class Timed(NamedTuple):
    """A network in one precision."""

    network: str
    precision: str
    torchs: float
    """Images a second with torch's gradients, by the median."""
    here: float
    """The same with those of `distill.training.depthwise`."""
    spread: float
    """p90 of the steps' times relative to their median, the larger one of both."""


def main(argv: Sequence[str]) -> int:
    """Time all networks, print the table and write the report."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/depthwise.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("networks", nargs="*", default=NETWORKS, help=f"(default {' '.join(NETWORKS)})")
    parser.add_argument("--size", type=int, nargs=2, default=(192, 256), metavar=("H", "W"), help="of a crop")
    parser.add_argument("--batch-size", type=int, default=8, help="(default 8)")
    parser.add_argument("--turns", type=int, default=5, help="steps of each kind, in turns (default 5)")
    parser.add_argument("--json", type=Path, default=Path("runs/depthwise.json"), help="report to write")
    options = parser.parse_args(argv)
    if min(options.batch_size - 1, options.turns, *options.size) < 1:
        raise UserError("--batch-size must be at least 2, --turns and --size at least 1")
    rows = []
    for name in options.networks:
        for precision in ("fp32", "bf16"):
            rows.append(timed(name, precision, options.size, options.batch_size, options.turns))
            print(rows[-1], file=sys.stderr)
    machine = describe()
    print(format_table(HEADER, [_cells(row) for row in rows]), summary(machine), sep="\n")
    write_json(
        options.json, {"machine": machine, "size": options.size, "rows": [row._asdict() for row in rows]}
    )
    return 0


def timed(name: str, precision: str, size: tuple[int, int], batch_size: int, turns: int) -> Timed:
    """Time one network in one precision.

    Args:
        name: as for `student.zoo.build_network`, with an auxiliary head and outputs at stride 2.
        precision: "fp32" or "bf16".
        size: height and width of a crop.
        batch_size: crops in a step.
        turns: steps of each kind.
    """
    # start-up time: torch is not needed for --help
    import torch

    from student.zoo import build_network

    torch.manual_seed(0)
    network = build_network(name, 3, CLASSES, output_stride=16, head_channels=128, detail=True).train()
    network = network.to(memory_format=torch.channels_last)
    image = torch.randn(batch_size, 3, *size).to(memory_format=torch.channels_last)
    times = in_turns({fast: _step(network, image, precision, fast) for fast in (False, True)}, turns)
    ms, p90 = np.percentile([times[False], times[True]], (50, 90), axis=1)
    torchs, here = (1000 * batch_size / ms).tolist()
    return Timed(name, precision, torchs, here, float((p90 / ms).max()))


def _step(network: "nn.Module", image: "torch.Tensor", precision: str, fast: bool) -> Callable[[], None]:
    import torch

    from distill.training.depthwise import fast_depthwise

    def step() -> None:
        network.zero_grad()
        mixed = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
        with fast_depthwise(network, fast):
            with mixed:
                output = network(image)
                loss = output.logits.float().square().mean() + output.aux.float().square().mean()
            loss.backward()

    return step


def _cells(row: Timed) -> tuple[str, ...]:
    rates = f"{row.torchs:.1f}", f"{row.here:.1f}", f"{row.here / row.torchs:.2f}×"
    return row.network, row.precision, *rates, f"{row.spread:.2f}"


if __name__ == "__main__":
    exit_with_one_line(lambda: main(sys.argv[1:]))
