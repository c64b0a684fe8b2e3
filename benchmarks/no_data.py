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
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.machine import describe, summary
from deploy.errors import UserError, exit_with_one_line
from deploy.files.atomic import write_json
from deploy.table import format_table
from distill.config import AugmentConfig, DataConfig, LossConfig, TrainConfig
from distill.data.sample import Sample, make_sample
from distill.data.seeding import generator
from distill.data.splits import Reader, Splits

if TYPE_CHECKING:
    from torch import nn

    Scorer = Callable[[nn.Module, Reader], float]
    """Test mIoU of a network on the scenes of a reader."""

SIDE = 48
"""Height and width of a scene in pixels."""
SCENES = 256, 1, 128
"""Scenes in the train, val and test splits before those with an edge of the swath are left out."""
OPTIONS = {"unet": {"width": 8, "depth": 3}, "pspnet/resnet18": {"head_channels": 64}}
RATES = {"unet": 3e-3, "pspnet/resnet18": 1e-3}
"""Options and learning rates of the networks that can be compared."""
MOST = 0.95
"""Largest share of a scene that may be missing."""
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


@dataclass(frozen=True)
class Setting:
    """Settings of all trainings."""

    arch: str
    steps: int
    batch_size: int
    uneven: bool
    """Some scenes lack `MOST` of their pixels and the others none."""


class GappedReader:
    """The complete scenes of a reader with gaps added, as a pure function of (seed, id).

    Gaps are smooth blobs in one half of the scenes and a strip at a random angle in the other.
    """

    def __init__(self, reader: Reader, share: float, seed: int, uneven: bool = False) -> None:
        """Keep the scenes without gaps.

        Args:
            reader: scenes; those with invalid pixels are left out.
            share: share of the pixels to remove, 0..`MOST`.
            seed: seed of the gaps.
            uneven: remove `MOST` of some scenes and nothing of the others, as in tiles of a mosaic, so that `share` is
                missing on average; otherwise remove `share` of each scene.
        """
        self.share, self.seed, self.uneven = share, seed, uneven
        samples = (reader[index] for index in range(len(reader)))
        self._samples = [sample for sample in samples if sample.valid.all()]
        self.ids: Sequence[str] = [sample.id for sample in self._samples]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        sample = self._samples[index]
        rng = generator("holes", self.seed, sample.id)
        share = MOST * (rng.random() < self.share / MOST) if self.uneven else self.share
        if not share:
            return sample
        shape = sample.label.shape[0], sample.label.shape[1]
        field = blobs(rng, shape) if index % 2 else strip(rng, shape)
        image = sample.image.numpy().transpose(1, 2, 0).copy()
        image[field < np.quantile(field, share)] = np.nan
        return make_sample(image, sample.label.numpy(), id=sample.id, num_classes=2)


def blobs(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A smooth random field H×W whose lowest values form blobs."""
    import cv2  # start-up time: not needed for --help

    noise = rng.standard_normal(shape).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), sigmaX=max(shape) / 12)


def strip(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """The distance H×W from a random line through the image."""
    angle = rng.uniform(0, np.pi)
    row, column = (rng.uniform(0, side) for side in shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.abs((x - column) * np.cos(angle) + (y - row) * np.sin(angle))


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
    from distill.data.registry import open_splits  # start-up time: not needed for --help

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


def trained(setting: Setting, splits: Splits, seed: int, masked: bool) -> "tuple[nn.Module, float, Scorer]":
    """Train a network on the training split.

    Args:
        setting: settings of all trainings.
        splits: the data; its training split may have gaps.
        seed: seed of first weights and data order.
        masked: use masked batch norms.

    Returns:
        The network, the seconds that its training took, and a function that scores it.
    """
    # start-up time: torch is not needed for --help
    import torch
    from accelerate import Accelerator

    from distill.data.stats import compute_stats
    from distill.data.train_view import TrainView
    from distill.export.evaluate import evaluate, torch_model
    from distill.export.to_onnx import input_spec
    from distill.training.loop import Stage, train
    from student.zoo import build_network

    stats = compute_stats(splits.train, len(splits.classes))
    size = SIDE, SIDE
    augment = AugmentConfig(crop=size, scale=(1.0, 1.0), vertical_flip=True)
    view = TrainView(splits.train, size=size, augment=augment, mean=stats.mean, optical=False, seed=seed)
    torch.manual_seed(seed)
    options = {"aux": False, "dropout": 0.0, **OPTIONS[setting.arch]}
    network = build_network(setting.arch, len(splits.channels), splits.outputs, **options)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (stats.mean, stats.std))
    config = TrainConfig(
        setting.steps,
        setting.batch_size,
        lr=RATES[setting.arch],
        warmup=setting.steps // 10,
        checkpoint_every=setting.steps,
        log_every=setting.steps,
        masked_norm=masked,
    )
    with tempfile.TemporaryDirectory() as folder:
        name = "masked" if masked else "plain"
        stage = Stage(name, Path(folder) / name, view, mean, std, LossConfig(aux=0.0), seed)
        began = time.perf_counter()
        train(network, stage, config, Accelerator(cpu=True))
        seconds = time.perf_counter() - began

    def score(network: "nn.Module", reader: Reader) -> float:
        spec = input_spec(splits, stats, size, "stretch")
        return evaluate(torch_model(network.eval(), spec, splits), reader, splits).score()

    return network, seconds, score


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
