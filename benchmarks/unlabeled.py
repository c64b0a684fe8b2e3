"""What are images without labels worth? `python benchmarks/unlabeled.py PRESET --labels 46 [--field value …]`.

For each seed, trains the preset's teacher on the images that keep their labels, and its student in several ways for
equally many steps: on these labels alone, distilled on these images alone, and distilled on all training images. All
are scored on the test split. Each result is stored as soon as it is there (`SEED/METHOD.json` in the folder of the
benchmark), and the same command goes on where it was stopped, training by training and step by step.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository root, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.paired import report, score_file, slug, stored
from deploy.errors import UserError, exit_with_one_line
from deploy.files.atomic import write_json
from distill.config import RunConfig
from distill.run import parse

if TYPE_CHECKING:
    from torch import nn

    from distill.pipeline.stages import Trained
    from distill.run_context import RunContext

TEACHER, ALONE = "teacher", "labels alone"
LABELED = "distilled, images with labels"
METHODS: dict[str, dict[str, object]] = {
    TEACHER: {},
    ALONE: {},
    LABELED: {},
    "distilled, all images": {},
    "distilled, all images, confident": {"min_confidence": 0.7},
    "distilled, all images, balanced": {"class_weights": "log"},
}
"""Fields of `DistillConfig` that a method changes."""


def main(argv: Sequence[str]) -> int:
    """Train, score, print the table and write it as JSON with a description of the machine."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/unlabeled.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("preset")
    parser.add_argument(
        "--labels", type=int, default=0, help="training images that keep their labels (0: all)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS)[:4])
    parser.add_argument("--folder", type=Path, help="of the benchmark (default: runs/unlabeled-PRESET)")
    options, fields = parser.parse_known_args(argv)
    folder = options.folder or Path("runs") / f"unlabeled-{options.preset}"
    typed = [options.preset, *fields, "--data.labels", str(options.labels), "--resume"]
    if not (options.labels or any(field.startswith("--data.unlabeled") for field in fields)):
        raise UserError("--labels: says how many training images keep their labels; or give --data.unlabeled")
    for seed in options.seeds:
        config = parse([*typed, "--seed", str(seed), "--out", str(folder / f"seed{seed}")])
        run_seed(config, options.methods)
        report(folder / "unlabeled.json", stored(folder, list(METHODS), options.seeds), ALONE, argv)
    return 0


def run_seed(config: RunConfig, methods: Sequence[str]) -> None:
    """Train and score by the methods that have no result yet.

    Args:
        config: of all of them; its `out` is the folder of the seed.
        methods: names in `METHODS`.
    """
    # start-up time: torch is not needed for --help
    from distill.pipeline.pipeline import test_scores
    from distill.pipeline.prepare import prepare
    from distill.pipeline.stages import the_teacher

    context = prepare(config)
    config = context.config
    teacher = the_teacher(context)
    for name in methods:
        path = score_file(config.out.parent, name, config.seed)
        if path.exists():
            continue
        trained = teacher if name == TEACHER else _student(context, name, teacher.network)
        score, details = test_scores(context, trained.network)
        write_json(path, {"score": score, "seconds": trained.seconds, "details": details})
        print(f"{name}, seed {config.seed}: test {100 * score:.2f} %", flush=True)


def _student(context: "RunContext", name: str, teacher: "nn.Module") -> "Trained":
    """Train the student by a method."""
    from distill.pipeline.stages import train_network

    config = context.config
    if name == ALONE:
        return train_network(context, slug(name), config.student, config.student_train)
    if name == LABELED:
        splits = replace(context.splits, unlabeled=None)
        context = replace(context, data=replace(context.data, splits=splits))
    cache = config.out / "teacher-cache" / slug(name)
    distill = replace(config.distill, cache=cache, **METHODS[name])  # pyright: ignore[reportArgumentType]
    context = context.with_config(replace(config, distill=distill))
    return train_network(context, slug(name), config.student, config.student_train, teacher)


if __name__ == "__main__":
    exit_with_one_line(lambda: main(sys.argv[1:]))
