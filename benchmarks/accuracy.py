"""Which network learns most in the same time? `python benchmarks/accuracy.py [NAME …] --minutes 4 --seeds 0 1 2`.

Trains networks of this package and of others (see `benchmarks.peer_networks`) from scratch in the same loop on the same
data, for the same CPU time on one thread, and scores them on the test split. With `--teacher` each is distilled from a
network that is trained first, within the same budget.

The steps of all networks are first timed in turns (`costs.json`); each training then has the number of steps that its
budget allows, and its schedule spans them. One JSON file for each network and seed; those there are not trained again.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository root, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from benchmarks.accuracy_plot import draw, latencies_of, points_of
from benchmarks.distillation import claimed
from benchmarks.leaderboard import mean_and_spread
from deploy.errors import UserError, exit_with_one_line
from deploy.files.atomic import write_json
from deploy.measure.machine import describe, summary
from deploy.table import format_table
from distill.config import AugmentConfig, DataConfig, DistillConfig, ModelConfig, RunConfig, TrainConfig

if TYPE_CHECKING:
    from benchmarks.accuracy_training import Result

NAMES = (
    "edge-nano",
    "edge-small",
    "torchvision LR-ASPP-MobileNetV3-L",
    "SMP DeepLabV3+-MobileNetV2",
    "ultralytics YOLO26n-sem",
)
HEADER = ("network", "seeds", "steps", "CPU s", "val mIoU %", "test mIoU %", "boundary F1 %")


def main(argv: Sequence[str]) -> int:
    """Train what has no result yet, print the table and write all results of the folder as JSON."""
    options = _parser().parse_args(argv)
    if options.minutes <= 0:
        raise UserError(f"--minutes {options.minutes:g}: must be above 0")
    if options.picture and not options.latencies:
        raise UserError("--picture: needs --latencies FILE, the JSON of benchmarks/peers.py")
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: CPU time is the budget
    from benchmarks.peer_networks import PEERS, missing_peers  # start-up time: torch

    missing = {name: command for name, command in missing_peers().items() if name in options.names}
    for name, command in missing.items():
        print(f"{name}: left out, needs {command}", flush=True)
    results = _trained(options, [name for name in options.names if name not in missing])
    machine = describe()
    print(table(results), summary(machine), sep="\n")
    settings = {"minutes": options.minutes, "data": options.data, "size": options.size, "lr": options.lr}
    report = {"machine": machine, **settings, "missing": missing, "results": [asdict(r) for r in results]}
    write_json(options.folder / "accuracy.json", report)
    if options.picture:
        points = points_of(results, latencies_of(options.latencies), PEERS)
        if not points:
            raise UserError(f"{options.latencies}: has none of the networks trained in {options.folder}")
        draw(points, options.picture)
    return 0


def _trained(options: argparse.Namespace, names: Sequence[str]) -> "list[Result]":
    """Train every network with every seed unless that has been done; returns all results of the folder."""
    # start-up time: torch is not needed for --help
    import torch

    from benchmarks.accuracy_training import Bench, Method
    from distill.pipeline.prepare import prepare

    torch.set_num_threads(1)
    methods = [Method(name, options.teacher, options.share if options.teacher else 0.0) for name in names]
    config = _config(options)
    # the folder is claimed for all methods, with a teacher and without
    context = prepare(replace(config, distill=DistillConfig())).with_config(config)
    bench = Bench(context, 60 * options.minutes)
    with claimed(bench.folder) as mine:
        if not mine:
            raise UserError(f"{bench.folder}: another process trains there; wait for it, or use --folder")
        costs = bench.costs(methods)
        for method in methods:
            for seed in options.seeds:
                print(table([bench.result(method, seed, costs)]).splitlines()[-1], flush=True)
    return bench.stored()


def table(results: "Sequence[Result]") -> str:
    """Mean ± sample standard deviation over the seeds of each method, in the given order."""
    by_name: dict[str, list[Result]] = {}
    for result in results:
        by_name.setdefault(result.name, []).append(result)
    return format_table(HEADER, [_row(name, runs) for name, runs in by_name.items()])


def _row(name: str, runs: "Sequence[Result]") -> tuple[str, ...]:
    scores = (
        mean_and_spread([100 * getattr(run, key) for run in runs])
        for key in ("val_miou", "test_miou", "test_boundary_f1")
    )
    seconds = statistics.fmean(run.cpu_seconds for run in runs)
    return (name, str(len(runs)), str(runs[0].steps), f"{seconds:.0f}", *scores)


def _config(options: argparse.Namespace) -> RunConfig:
    """The configuration that all trainings share, independent of any preset."""
    training = TrainConfig(
        steps=1, lr=options.lr, weight_decay=0.01, warmup=50, checkpoint_every=10**9, log_every=50
    )
    size, unused = tuple(options.size), ModelConfig("edge-nano", detail=False)  # networks are built by name
    return RunConfig(
        data=DataConfig(options.data, options.root, size=size),
        teacher=unused,
        student=unused,
        teacher_train=training,
        student_train=training,
        augment=AugmentConfig(crop=size, scale=(0.75, 1.5)),
        distill=DistillConfig(
            loss=options.loss, start=options.start, schedule=options.schedule, weight=options.weight
        ),
        precision="fp32",
        out=options.folder,
        resume=True,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/accuracy.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("names", nargs="*", default=list(NAMES), metavar="NAME", help="networks to train")
    parser.add_argument("--minutes", type=float, default=4, help="CPU minutes of each training (4)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", default="camvid", help="data set, in $EDGEDISTILL_DATA (camvid)")
    parser.add_argument("--root", type=Path, help="folder of the data set, if it is elsewhere")
    parser.add_argument("--size", type=int, nargs=2, default=[160, 192], help="height and width (160 192)")
    parser.add_argument("--lr", type=float, default=2e-3, help="learning rate of AdamW, for all (0.002)")
    parser.add_argument("--folder", type=Path, default=Path("runs/accuracy"), help="folder of the results")
    parser.add_argument("--latencies", type=Path, metavar="FILE", help="JSON of benchmarks/peers.py")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="plot mIoU against latency (.svg, .png)")
    teacher = parser.add_argument_group("distillation")
    teacher.add_argument("--teacher", default="", metavar="NAME", help="network to train first (none)")
    teacher.add_argument("--share", type=float, default=0.4, help="its fraction of the budget (0.4)")
    teacher.add_argument("--loss", default="kl(t=2)", help="distillation loss (kl(t=2))")
    teacher.add_argument("--weight", type=float, default=1.0, help="its weight (1)")
    teacher.add_argument("--schedule", choices=("constant", "cosine"), default="constant")
    teacher.add_argument("--start", choices=("teacher", "own"), default="teacher", help="first weights")
    return parser


if __name__ == "__main__":
    exit_with_one_line(lambda: main(sys.argv[1:]))
