"""Which layout should `edge` students have? `python benchmarks/design.py PRESET [--minutes M] [--field value …]`.

Measures the latency of every layout (`benchmarks/design_layouts.py`) in fp32 and INT8 on this machine's CPU backends,
all in turns, and counts the layers that TensorRT-RTX makes of it where that is installed. Then trains each for the same
CPU time under one teacher, with the preset's losses, and scores it on the validation split. Trainings take one thread,
so that CPU time depends little on other load.

The teacher is trained by the preset, or ready-made (`--teacher.bundle FOLDER`). The same command resumes. Writes
`design.json`, `design.md` and `design.svg` into the folder of the benchmark.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository root, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from deploy.errors import UserError, exit_with_one_line
from deploy.files.atomic import atomic_write, write_json
from deploy.measure.machine import describe, summary
from distill.config import RunConfig
from distill.run import parse

if TYPE_CHECKING:
    from benchmarks.design_layouts import Layout
    from benchmarks.design_training import Result

VIEWS = 4
"""Augmented views of each image, for which the teacher is run once, unless the command line says otherwise."""


def main(argv: Sequence[str]) -> int:
    """Measure, train and compare; print the table and write the reports."""
    options, fields = _parser().parse_known_args(argv)
    if options.minutes < 0:
        raise UserError(f"--minutes {options.minutes:g}: give 0 (latency only) or more")
    # start-up time: torch is not needed for --help
    from benchmarks.design_layouts import layouts

    chosen = layouts(options.layouts)
    folder = f"runs/design-{options.preset}"
    config = parse([options.preset, "--out", folder, "--distill.views", str(VIEWS), *fields, "--resume"])
    costs = _costs(config.out, chosen, options)
    results = _train(config, chosen, options.minutes * 60, options.seeds) if options.minutes else []
    _report(config.out, chosen, costs, results, options)
    return 0


def _costs(
    folder: Path, chosen: Sequence["Layout"], options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """What the layouts cost, read from the file of such a measurement if it has all of them, else measured together."""
    from benchmarks.design_costs import latencies  # start-up time
    from benchmarks.networks import color_spec

    path = folder / f"latency-{options.size}-{options.classes}-{options.runs}.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if known.keys() >= {layout.name for layout in chosen}:
        return known
    models = folder / f"models-{options.size}-{options.classes}"
    models.mkdir(parents=True, exist_ok=True)
    found = latencies(chosen, color_spec(options.size), options.classes, options.runs, models)
    write_json(path, found)
    return found


def _train(
    config: RunConfig, chosen: Sequence["Layout"], seconds: float, seeds: Sequence[int]
) -> list["Result"]:
    import torch  # start-up time

    from benchmarks.design_training import Trainer
    from distill.pipeline.prepare import prepare
    from distill.pipeline.stages import the_teacher

    torch.set_num_threads(1)
    config = replace(config, distill=replace(config.distill, start="own"))
    context = prepare(config)
    if context.splits.task != "segmentation":
        raise UserError(f"{config.data.name}: layouts are compared by mIoU; give a preset of segmentation")
    trainer = Trainer(context, the_teacher(context).network, seconds)
    steps = trainer.step_seconds(chosen)
    results = []
    for seed in seeds:
        for layout in chosen:
            result = trainer.result(layout, steps[layout.name], seed)
            scores = f"val mIoU {100 * result.miou:.2f} %, boundary F1 {100 * result.boundary_f1:.2f} %"
            print(f"{layout.name}, seed {seed}: {result.steps} steps, {scores}", flush=True)
            results.append(result)
    return results


def _report(
    folder: Path,
    chosen: Sequence["Layout"],
    costs: dict[str, dict[str, Any]],
    results: Sequence["Result"],
    options: argparse.Namespace,
) -> None:
    from benchmarks.design_report import Row, draw, markdown  # start-up time

    rows = [
        Row(
            layout.name,
            **costs[layout.name],
            results=tuple(result for result in results if result.name == layout.name),
        )
        for layout in chosen
    ]
    machine = describe()
    table = markdown(rows)
    print(table, summary(machine), sep="\n")
    about = {"machine": machine, "minutes": options.minutes, "size": options.size}
    write_json(folder / "design.json", {**about, "rows": [asdict(row) for row in rows]})
    with atomic_write(folder / "design.md", "w") as file:
        file.write(table)
    if results:
        draw(rows, folder / "design.svg")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks/design.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("preset", help="preset of a segmentation run; its student is replaced by the layouts")
    parser.add_argument("--minutes", type=float, default=2.0, help="CPU time of each training (2); 0 = none")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the trainings (0)")
    parser.add_argument("--layouts", nargs="+", default=[], metavar="NAME", help="some of the layouts only")
    parser.add_argument("--size", type=int, default=320, help="side of the square image that is timed (320)")
    parser.add_argument("--classes", type=int, default=11, help="classes of the networks timed (11)")
    parser.add_argument("--runs", type=int, default=20, help="measured inferences of each in a round (20)")
    return parser


if __name__ == "__main__":
    exit_with_one_line(lambda: main(sys.argv[1:]))
