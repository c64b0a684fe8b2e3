"""What do pixels without data cost, and do masked batch norms help? `python benchmarks/no_data.py [--shares 0 0.2 …]`.

Trains a small network on built-in SAR scenes of which a given share is missing, in blobs or in strips, once with
ordinary batch norms and once with masked ones (`--student-train.masked-norm`): same first weights, scenes, order and
steps. Each is then scored on test scenes without gaps and on test scenes with the same share of gaps, over valid
pixels. Scenes that already have gaps, at the edge of the swath, are left out, so that the share is exact.

Prints mean ± sample standard deviation over the seeds, with the gain by seed, and writes JSON with a description of the
machine (default: `runs/no-data.json`).
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository root, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from benchmarks.no_data_gaps import MOST, GappedReader
from benchmarks.no_data_training import OPTIONS, SIDE, Setting, trained
from deploy.errors import UserError, exit_with_one_line
from deploy.files.atomic import write_json
from deploy.measure.machine import describe, summary
from deploy.table import format_table
from distill.config import DataConfig
from distill.tasks.registry import open_splits

SCENES = 256, 1, 128
"""Scenes in the train, val and test splits before those with an edge of the swath are left out."""
HEADER = ("missing in training", "missing in test", "plain", "masked", "gain", "gain by seed")


@dataclass(frozen=True)
class Score:
    """The score of one training on one kind of test scenes."""

    share: float
    """Missing share of the training scenes."""
    test_share: float
    """Missing share of the test scenes."""
    masked: bool
    seed: int
    miou: float
    seconds: float
    """Duration of the training."""


def main(argv: Sequence[str]) -> int:
    """Train and score everything, print the table and write the report."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/no_data.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.2, 0.4, 0.6])
    parser.add_argument("--uneven", action="store_true", help="gaps cover nearly all of a scene or nothing")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arch", choices=OPTIONS, default="unet", help="network (default unet)")
    parser.add_argument("--steps", type=int, default=400, help="steps of each training (default 400)")
    parser.add_argument("--batch-size", type=int, default=8, help="scenes in a step (default 8)")
    parser.add_argument("--json", type=Path, default=Path("runs/no-data.json"), help="report to write")
    options = parser.parse_args(argv)
    if not all(0 <= share <= MOST for share in options.shares):
        raise UserError(f"--shares {options.shares}: each is a fraction, from 0 to {MOST}")
    if options.steps < 1 or options.batch_size < 2:
        raise UserError("--steps must be at least 1, and --batch-size 2")
    setting = Setting(options.arch, options.steps, options.batch_size, options.uneven)
    scores: list[Score] = []
    for seed in options.seeds:
        for share in options.shares:
            scores += compare(setting, share, seed)
    machine = describe()
    print(table(scores), summary(machine), sep="\n")
    report = {"machine": machine, **asdict(setting), "scores": [asdict(score) for score in scores]}
    write_json(options.json, report)
    return 0


def compare(setting: Setting, share: float, seed: int) -> list[Score]:
    """Train with both kinds of batch norm on scenes with gaps, and score each with and without gaps.

    Args:
        setting: settings of all trainings.
        share: missing share of the training scenes.
        seed: seed of scenes, gaps and first weights.

    Returns:
        A score for each kind of batch norm and of test scenes.
    """
    scenes = open_splits(DataConfig("synthetic", size=(SIDE, SIDE), synthetic_counts=SCENES), seed)
    training = GappedReader(scenes.train, share, seed, setting.uneven)
    tests = {
        test_share: GappedReader(scenes.test, test_share, seed, setting.uneven)
        for test_share in sorted({0.0, share})
    }
    scores = []
    for masked in (False, True):
        network, seconds, score = trained(setting, replace(scenes, train=training), seed, masked)
        for test_share, reader in tests.items():
            scores.append(Score(share, test_share, masked, seed, score(network, reader), seconds))
            print(scores[-1], file=sys.stderr)
    return scores


def table(scores: Sequence[Score]) -> str:
    """Test mIoU in percent by share and kind of test scene, both kinds of norm side by side."""
    rows = []
    for share, test_share in sorted({(score.share, score.test_share) for score in scores}):
        cell = [s for s in scores if (s.share, s.test_share) == (share, test_share)]
        plain, masked = (
            [100 * s.miou for s in sorted(cell, key=lambda s: s.seed) if s.masked is kind]
            for kind in (False, True)
        )
        gains = [b - a for a, b in zip(plain, masked, strict=True)]
        rows.append(
            (
                f"{share:.0%}",
                f"{test_share:.0%}",
                *map(_mean_and_spread, (plain, masked, gains)),
                " ".join(f"{gain:+.2f}" for gain in gains),
            )
        )
    return format_table(HEADER, rows)


def _mean_and_spread(values: Sequence[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.2f} ± {spread:.2f}"


if __name__ == "__main__":
    exit_with_one_line(lambda: main(sys.argv[1:]))
