"""What do finer outputs give? `python benchmarks/resolution.py PRESET [--minutes 5] [--json FILE] [--field value …]`.

Trains a preset's student with each of its output strides, and segmentation-models-pytorch's U-Net-ResNet18 if it is
installed and the images have three channels: on labels alone, from new weights, one seed, for the same CPU time on one
thread. Prints what the labels allow at each stride, and the scores on the test split. Steps are timed first, in turns;
each training has the number of steps that its budget allows. The same command resumes (in `runs/resolution-PRESET`
unless `--out` says otherwise).
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository root, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from deploy.errors import UserError, exit_with_one_line
from deploy.files.atomic import write_json
from deploy.measure.machine import describe, summary
from deploy.table import format_table
from distill.inspect_data.tables import structure_table
from distill.run import parse

if TYPE_CHECKING:
    from benchmarks.resolution_training import Result

PEER = "SMP U-Net-ResNet18"


def main(argv: Sequence[str]) -> int:
    """Measure, train and score; print the tables and write the JSON."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/resolution.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("preset")
    parser.add_argument("--minutes", type=float, default=5, help="CPU minutes of each training (5)")
    parser.add_argument("--no-peer", action="store_true", help="leave the U-Net out")
    parser.add_argument("--json", type=Path, help="report to write (default: resolution.json in --out)")
    options, fields = parser.parse_known_args(argv)
    if options.minutes <= 0:
        raise UserError(f"--minutes {options.minutes:g}: must be above 0")
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: CPU time is the budget
    # start-up time: torch is not needed for --help
    import torch

    from benchmarks.resolution_training import opened, train_all

    torch.set_num_threads(1)
    own = ["--out", f"runs/resolution-{options.preset}"]  # never the folder of a run of the preset
    config = parse([options.preset, *own, *fields, "--precision", "fp32", "--resume"])
    config = replace(config, student=replace(config.student, pretrained=False, weights=None))
    context = opened(config)
    structures = context.task.structures(config.data, context.splits)
    if structures is None:
        raise UserError(f"{options.preset}: its labels are no classes; choose a preset of segmentation")
    names = [info.name for info in context.splits.classes]
    print(structure_table(structures), "", sep="\n", flush=True)
    results = train_all(context, 60 * options.minutes, peer="" if options.no_peer else PEER)
    machine = describe()
    print(table(results, names), summary(machine), sep="\n")
    report = {"machine": machine, "minutes": options.minutes, "preset": options.preset, "fields": fields}
    found = {"structures": structures, "results": [asdict(result) for result in results]}
    write_json(options.json or config.out / "resolution.json", report | found)
    return 0


def table(results: "Sequence[Result]", classes: Sequence[str]) -> str:
    """Scores on the test split in percent, one line a network."""
    header = ("network", "stride", "steps", "CPU s", "mIoU", "boundary F1", *classes)
    return format_table(header, [_row(one, classes) for one in results])


def _row(one: "Result", classes: Sequence[str]) -> tuple[str, ...]:
    ious = [one.iou.get(name) for name in classes]
    scores = [one.miou, one.boundary_f1, *ious]
    cells = ["–" if score is None else f"{100 * score:.1f}" for score in scores]
    return (one.name, f"{one.stride:g}", str(one.steps), f"{one.cpu_seconds:.0f}", *cells)


if __name__ == "__main__":
    exit_with_one_line(lambda: main(sys.argv[1:]))
