"""Mistakes in a configuration, found before anything is trained or written."""

import math
from collections.abc import Iterator

from deploy.errors import UserError
from deploy.evaluation.labeled_data import DATA
from distill.config import DistillConfig, LossConfig, RunConfig, TrainConfig
from distill.data.augment import check_augment
from distill.data.splits import Splits
from distill.losses.distillation_loss import parse_aux_terms
from distill.losses.expression import parse_terms
from distill.losses.supervised.grasp import QualityKind, check_taught, quality_kind
from distill.losses.task_loss import parse_task_terms, task_methods

GRASP_DISTILLATION = ("grasp_kl", "maps", "mse", "feature", "at", "skd")
"""Distillation losses of grasp maps, and those that compare numbers, whatever they mean."""
MIN_CALIBRATION = 8
"""Images with which `deploy.quantize` begins."""


def check_config(config: RunConfig, processes: int) -> None:
    """Raise UserError naming the first field of `config` that makes no sense for that many processes."""
    check_augment(config.augment)
    problems = [
        *_range("data.size", min(config.data.size), 8),
        *_range("data.synthetic-counts", min(config.data.synthetic_counts), 1),
        *_range("export.opset", config.export.opset, 18),
        *_loss_problems(config.loss),
        *_distill_problems(config.distill),
        *_int8_problems(config),
        *_training_problems("teacher-train", config.teacher_train, processes),
        *_training_problems("student-train", config.student_train, processes),
    ]
    if problems:
        raise UserError(problems[0])


def check_splits(config: RunConfig, splits: Splits) -> None:
    """Raise UserError where the data set and the configuration do not fit together."""
    if config.int8.enabled and len(splits.train) < MIN_CALIBRATION:
        raise UserError(
            f"the training split has {len(splits.train)} images, too few to quantize by ({MIN_CALIBRATION});"
            " add images, or give --int8.no-enabled"
        )
    check_task(config, splits)
    classes, weights = len(splits.classes), len(config.loss.class_weight_values)
    if weights not in (0, classes):
        raise UserError(
            f"--loss.class-weight-values: {weights} weights for {classes} classes; give one a class"
        )
    if splits.task == "grasp":
        return
    if classes != 2 and any(t.loss == "lovasz_hinge" for t in parse_task_terms(config.loss.task)):
        raise UserError(f"--loss.task: lovasz_hinge is for two classes, the data has {classes}; use lovasz")


def check_task(config: RunConfig, splits: Splits) -> None:
    """Raise UserError where a loss or an option is not for the task of the data."""
    task_terms = parse_task_terms(config.loss.task, task_methods(splits.task))
    if splits.task != "grasp":
        return
    _check_grasp_teaching(config.distill, quality_kind(term.loss for term in task_terms))
    if config.loss.class_weights != "none" or config.loss.class_weight_values:
        raise UserError("--loss.class-weights: are for classes, the data has grasps; leave them out")
    if config.data.resize != "stretch":
        raise UserError("--data.resize tile: is for segmentation; grasps are found in the whole image")
    if config.data.normalize != "set":
        raise UserError(f"--data.normalize {config.data.normalize}: is for segmentation, the data has grasps")
    if config.augment.balance or config.augment.max_no_data < 1:
        raise UserError("--augment.balance and --augment.max-no-data: are for classes, the data has grasps")


def _check_grasp_teaching(distill: DistillConfig, quality: QualityKind) -> None:
    for option, terms in (
        ("--distill.loss", parse_terms(distill.loss)),
        ("--distill.aux", parse_aux_terms(distill.aux)),
    ):
        for method in (term.loss for term in terms):
            if method not in GRASP_DISTILLATION:
                names = ", ".join(GRASP_DISTILLATION)
                raise UserError(f"{option}: {method} is for classes, the data has grasps; use {names}")
            check_taught(option, method, quality)
    if distill.trust == "label" or distill.combine == "label":
        raise UserError("--distill.trust and --distill.combine label: are for classes, the data has grasps")
    if distill.teachers:
        raise UserError(
            "--distill.teachers: join probabilities of classes, the data has grasps; give one teacher"
        )


def _loss_problems(loss: LossConfig) -> Iterator[str]:
    values = loss.class_weight_values
    if values and loss.class_weights != "none":
        yield f"--loss.class-weights {loss.class_weights}: does not go with --loss.class-weight-values; choose one"
    if not all(0 < value < math.inf for value in values):
        yield f"--loss.class-weight-values {' '.join(f'{v:g}' for v in values)}: each must be above 0, and finite"


def _distill_problems(distill: DistillConfig) -> Iterator[str]:
    parse_terms(distill.loss)
    parse_aux_terms(distill.aux)
    yield from _range("distill.views", distill.views, 0)
    if distill.weight < 0:
        yield f"--distill.weight {distill.weight}: must be at least 0"


def _int8_problems(config: RunConfig) -> Iterator[str]:
    int8 = config.int8
    minima = {"calibration_images": MIN_CALIBRATION, "val_images": 1, "test_images": 1, "qat_steps": 0}
    for field, minimum in minima.items():
        yield from _range(f"int8.{field.replace('_', '-')}", getattr(int8, field), minimum)
    for field in ("max_drop", "min_agreement"):
        if not 0 <= getattr(int8, field) <= 1:
            yield f"--int8.{field.replace('_', '-')} {getattr(int8, field)}: is a fraction, from 0 to 1"
    if not int8.qat_lr > 0:
        yield f"--int8.qat-lr {int8.qat_lr}: must be above 0"
    root = config.data.root
    if root is not None and root.resolve().is_relative_to((config.out / DATA).resolve()):
        yield f"--data.root {root}: lies where the run writes, in {config.out / DATA}; choose another --out"


def _training_problems(name: str, config: TrainConfig, processes: int) -> Iterator[str]:
    minima = {"steps": 0, "batch_size": 1, "accumulate": 1, "warmup": 0, "workers": 0, "eval_every": 0}
    minima |= {"checkpoint_every": 1, "log_every": 1, "plateau_patience": 0}
    for field, minimum in minima.items():
        yield from _range(f"{name}.{field.replace('_', '-')}", getattr(config, field), minimum)
    if not 0 <= config.ema < 1:
        yield f"--{name}.ema {config.ema}: must be in 0..1, below 1"
    if config.lr <= 0:
        yield f"--{name}.lr {config.lr}: must be above 0"
    if config.schedule == "plateau" and not config.eval_every:
        yield f"--{name}.schedule plateau: needs validation scores on the way; give --{name}.eval-every"
    if not 0 < config.plateau_factor < 1:
        yield f"--{name}.plateau-factor {config.plateau_factor}: must be in 0..1, neither of them"
    if config.compile and config.checkpoint_activations:
        yield f"--{name}.compile: does not go with --{name}.checkpoint-activations; choose one"
    parts = processes * max(config.accumulate, 1)
    if config.batch_size % parts:
        yield (
            f"--{name}.batch-size {config.batch_size}: does not divide into {processes} process(es) ×"
            f" {config.accumulate} micro-batch(es)"
        )
    elif config.batch_size // config.accumulate < 2:
        yield (
            f"--{name}.batch-size {config.batch_size}: leaves one image to a micro-batch, where the batch norm of the"
            " 1×1 pooling needs two or more"
        )


def _range(name: str, value: int, minimum: int) -> Iterator[str]:
    if value < minimum:
        yield f"--{name} {value}: must be at least {minimum}"
