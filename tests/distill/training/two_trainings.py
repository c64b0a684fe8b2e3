"""Trainings of the real loop that give the same in one process and in several."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from deploy.errors import UserError
from distill.config import AugmentConfig, DataConfig, TrainConfig
from distill.data.loader import Shard, train_batches
from distill.data.readers import Changed
from distill.data.sample import Batch, Sample, without_labels
from distill.data.splits import Reader
from distill.distillation.teachers import cached_teacher, online_teacher
from distill.export.evaluate import evaluate
from distill.losses.distillation_loss import TeacherOutput
from distill.pipeline.prepare import prepare
from distill.pipeline.stages import training_stage
from distill.presets import smoke
from distill.run_context import RunContext
from distill.training.loop import train
from tests.distill.tiny import TinyNet, distillation, tiny_net

SGD = TrainConfig(
    steps=20, batch_size=8, optimizer="sgd", schedule="poly", lr=0.05, momentum=0.9, warmup=2, log_every=5,
    eval_every=10, workers=0,
)  # fmt: skip
ADAMW = replace(SGD, optimizer="adamw", schedule="cosine", lr=3e-3)
CONFIGS = {
    "sgd": SGD,
    "adamw": ADAMW,
    "sgd, accumulated, averaged": replace(SGD, accumulate=2, ema=0.9),
    "sgd, plateau": replace(SGD, schedule="plateau", plateau_patience=0, eval_every=2),
    "adamw, accumulated": replace(ADAMW, accumulate=2),
    "sgd, accumulated, masked": replace(SGD, accumulate=2, masked_norm=True),
    "sgd, accumulated, mixed": replace(SGD, accumulate=2),
}
LOSS = "kl(t=2) + feature(layer4) + cosine(layer4) + at(layer4)"
VAL_IMAGES = 5
VOID = {0, 1, 2, 3, 4, 5, 7, 8}
"""Training images without a valid pixel, of 12 in batches of 4: sometimes one process has nothing, sometimes all."""


@dataclass
class Recorded:
    """A reader that records what was read and makes some samples void."""

    reader: Reader
    void: Sequence[int] | set[int] = ()

    def __post_init__(self):
        self.read: list[int] = []
        self.ids = self.reader.ids

    def __len__(self):
        return len(self.reader)

    def __getitem__(self, index: int) -> Sample:
        self.read.append(index)
        sample = self.reader[index]
        if index not in self.void:
            return sample
        return replace(sample, label=torch.full_like(sample.label, 255), valid=torch.zeros_like(sample.valid))


def exact_net(seed: int) -> TinyNet:
    """A network without dropout, whose random numbers differ by process, and without a bias before a norm.

    The gradient of such a bias is only rounding error, which AdamW would scale to full steps.
    """
    network = tiny_net(seed)
    network.dropout.p = 0.0
    network.backbone[0].bias = None  # pyright: ignore[reportArgumentType]
    return network


def open_context(out: Path) -> RunContext:
    """The smoke run on small scenes, some of them void, with readers that record."""
    config = smoke()
    training = replace(config.student_train, batch_size=8)
    config = replace(
        config,
        data=DataConfig("synthetic", size=(32, 32), synthetic_counts=(12, VAL_IMAGES, 1)),
        augment=AugmentConfig(crop=(24, 24)),
        teacher_train=training,
        student_train=training,
        precision="fp32",
        out=out,
    )
    context = prepare(config)
    splits = replace(
        context.splits, train=Recorded(context.splits.train, VOID), val=Recorded(context.splits.val)
    )
    return replace(context, data=replace(context.data, splits=splits))


def trained(name: str, context: RunContext) -> dict[str, Tensor]:
    """Weights and running statistics after a training with a teacher, auxiliary head and validation."""
    mixed = "mixed" in name
    if mixed:  # the same images once more, without labels
        splits = replace(context.splits, unlabeled=Changed(context.splits.train, without_labels))
        context = replace(context, data=replace(context.data, splits=splits))
    stage = training_stage(context, name.replace(", ", "-"), context.config.student, distills=mixed)
    scores: list[list[float]] = []

    def evaluate(network):
        assert stage.evaluate is not None
        found = stage.evaluate(network)
        scores.append(list(found.values()))
        if CONFIGS[name].schedule == "plateau":
            return found
        return {"miou": float(len(scores))}  # the last is the best

    network = exact_net(seed=0)
    lesson = distillation(exact_net(seed=9), network, context.accelerator, LOSS, trust="label")
    train(network, replace(stage, evaluate=evaluate), CONFIGS[name], context.accelerator, distillation=lesson)
    return {**network.state_dict(), "scores": torch.tensor(scores, dtype=torch.float64)}


def all_trained(rank: int, out: Path) -> dict:
    """The results of all trainings in one process.

    Returns:
        The result of `trained` for every configuration, the validation images that this process read for the first one
        (`read`), and the error of an evaluation with a bad image (`failing`).
    """
    context = open_context(out)
    assert context.accelerator.process_index == rank
    results: dict = {}
    for name in CONFIGS:
        results[name] = trained(name, context)
        results.setdefault("read", context.splits.val.read[:])  # pyright: ignore[reportAttributeAccessIssue]
    return results | {"stored": stored(context), "failing": failing_evaluation(context)}


STORED_VIEWS = 6


def stored(context: RunContext) -> dict[str, Tensor]:
    """All teacher outputs that the processes cached together, and for how many views this one ran the teacher."""
    stage = training_stage(context, "stored", context.config.student, views=STORED_VIEWS)
    teach = online_teacher([exact_net(seed=9)], context.accelerator)
    asked: list[int] = []

    def counting(batch: Batch, image: Tensor) -> TeacherOutput:
        asked.append(len(image))
        return teach(batch, image)

    folder = context.config.out / "cache"
    recall = cached_teacher(counting, stage, folder, "fp32", context.accelerator, {"teacher": "nine"})
    keys = tuple((view, index) for view in range(STORED_VIEWS) for index in range(len(stage.view)))
    empty = torch.zeros(0)
    logits = recall(Batch(empty, empty, empty, (), keys), empty).logits
    return {"logits": logits, "asked": torch.tensor(sum(asked) - 1)}  # the first one is for the shapes


def valid_pixels(context: RunContext, config: TrainConfig, world: int) -> Tensor:
    """Number of valid pixels by step, micro-batch and process."""
    view = training_stage(context, "count", context.config.student).view
    counts = [
        [
            int(batch.valid.sum())
            for batch in train_batches(
                view, config.batch_size, 0, 0, config.steps, shard=Shard(rank, world, config.accumulate)
            )
        ]
        for rank in range(world)
    ]
    return torch.tensor(counts).T.reshape(config.steps, config.accumulate, world)


def failing_evaluation(context: RunContext) -> str:
    """The error message of an evaluation with a damaged image in the second process."""

    class Damaged(Recorded):
        def __getitem__(self, index):
            if index == 3:
                raise UserError("image 3 is damaged")
            return super().__getitem__(index)

    def model(image):
        return SimpleNamespace(labels=np.zeros(image.shape[:2], np.uint8))

    try:
        evaluate(model, Damaged(context.splits.val), context.data, accelerator=context.accelerator)  # pyright: ignore
    except UserError as error:
        return str(error)
    return ""
