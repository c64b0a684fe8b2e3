"""Does pre-training without labels help? `python benchmarks/pretraining.py PRESET --images FOLDER… [--field value …]`.

For each seed, pre-trains the backbone of the preset's student on the images of the folders (`edgedistill pretrain`),
then trains the student on the preset's labels alone, for equally many steps from nothing and from that backbone. Both
are scored on the test split. The pre-training has the sizes, crops and batches of the preset. Each result is stored as
soon as it is there, and the same command goes on where it was stopped.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository root, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.paired import report, score_file, slug, stored
from deploy.errors import exit_with_one_line
from deploy.files.atomic import write_json
from distill.config import RunConfig
from distill.pretraining.config import PretrainConfig
from distill.run import parse

NOTHING, PRETRAINED = "from nothing", "pre-trained"


def main(argv: Sequence[str]) -> int:
    """Pre-train, train, score, print the table and write it as JSON with a description of the machine."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/pretraining.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("preset")
    parser.add_argument("--images", type=Path, nargs="+", required=True, metavar="FOLDER")
    parser.add_argument("--pretrain-steps", type=int, default=1000, help="(default 1000)")
    parser.add_argument("--pretrain-loss", default=PretrainConfig.loss, help="(default %(default)s)")
    parser.add_argument("--pretrain-teacher", default=PretrainConfig.teacher, help="(default %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, help="of the benchmark (default: runs/pretraining-PRESET)")
    options, fields = parser.parse_known_args(argv)
    folder = options.folder or Path("runs") / f"pretraining-{options.preset}"
    pretraining = PretrainConfig(
        tuple(options.images), teacher=options.pretrain_teacher, loss=options.pretrain_loss
    )
    train = replace(pretraining.train, steps=options.pretrain_steps, warmup=options.pretrain_steps // 20)
    pretraining = replace(pretraining, train=train)
    for seed in options.seeds:
        typed = [options.preset, *fields, "--no-teacher", "--resume", "--seed", str(seed)]
        config = parse([*typed, "--out", str(folder / f"seed{seed}")])
        for method in (NOTHING, PRETRAINED):
            run_method(method, config, pretraining)
        report(
            folder / "pretraining.json", stored(folder, [NOTHING, PRETRAINED], options.seeds), NOTHING, argv
        )
    return 0


def run_method(method: str, config: RunConfig, pretraining: PretrainConfig) -> None:
    """Train the student in one of the two ways, score it and store the score, unless that has been done.

    Args:
        method: `NOTHING` or `PRETRAINED`.
        config: of the training; its `out` is the folder of the seed.
        pretraining: images, teacher, losses and steps of the pre-training.

    Raises:
        UserError: it has been done with other settings.
    """
    # start-up time: torch is not needed for --help
    from distill.pipeline.pipeline import test_scores
    from distill.pipeline.prepare import prepare
    from distill.pipeline.stages import train_network
    from distill.pretraining.pretrain import pretrain

    folder, model = config.out, config.student
    if method == PRETRAINED:
        model = replace(model, weights=pretrain(fitted(pretraining, config)))
    # before the score is looked for: it compares the settings and data of what has been done
    context = prepare(replace(config, student=model, out=folder / slug(method)))
    path = score_file(folder.parent, method, config.seed)
    if path.exists():
        return
    trained = train_network(context, "student", context.config.student, context.config.student_train)
    score, details = test_scores(context, trained.network)
    write_json(path, {"score": score, "seconds": trained.seconds, "details": details})
    print(f"{method}, seed {config.seed}: test {100 * score:.2f} %", flush=True)


def fitted(pretraining: PretrainConfig, config: RunConfig) -> PretrainConfig:
    """The pre-training of the student of a run, on images of the same size, with its crops, batches and seed."""
    batches = {name: getattr(config.student_train, name) for name in ("batch_size", "workers")}
    return replace(
        pretraining,
        student=config.student.arch,
        size=config.data.size,
        augment=replace(config.augment, balance=0.0),
        train=replace(pretraining.train, **batches),
        precision=config.precision,
        seed=config.seed,
        out=config.out / "pretrain",
        resume=True,
    )


if __name__ == "__main__":
    exit_with_one_line(lambda: main(sys.argv[1:]))
