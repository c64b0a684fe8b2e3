"""Rules that tie fields of a configuration to one another, to the data and to the machine.

Rules for a single field are in its section of the configuration (`distill.config`).
"""

import math

from deploy.errors import UserError
from deploy.evaluation.labeled_data import DATA
from deploy.quantize.limits import MIN_CALIBRATION_IMAGES
from distill.config import RunConfig, TrainConfig
from distill.data.splits import Splits
from distill.losses.distillation_loss import DistillationTerms
from distill.tasks.task import TrainingTask


def check_config(config: RunConfig, processes: int) -> None:
    """Check the configuration before anything is opened.

    Args:
        config: of the run.
        processes: how many train together.

    Raises:
        UserError: naming the first field that does not go with another, or with that many processes.
    """
    if not 0 <= config.max_minutes < math.inf:
        raise UserError(f"--max-minutes {config.max_minutes:g}: must be above 0, or 0 for no limit")
    root, data = config.data.root, config.out / DATA
    if root is not None and root.resolve().is_relative_to(data.resolve()):
        raise UserError(f"--data.root {root}: lies where the run writes, in {data}; choose another --out")
    if config.loss.class_weight_values and config.loss.class_weights != "none":
        kind = config.loss.class_weights
        raise UserError(
            f"--loss.class-weights {kind}: does not go with --loss.class-weight-values; choose one"
        )
    if config.no_teacher and config.distill.teachers:
        raise UserError("--distill.teachers: does not go with --no-teacher; choose one")
    _check_latency_budget(config)
    for name, training in (("teacher-train", config.teacher_train), ("student-train", config.student_train)):
        _check_options(name, training)
        _check_batch(name, training, processes)


def check_data(
    config: RunConfig, splits: Splits, task: TrainingTask, distillation: DistillationTerms
) -> None:
    """Raise `UserError` where the data set and the configuration do not fit together."""
    if config.int8.enabled and len(splits.train) < MIN_CALIBRATION_IMAGES:
        raise UserError(
            f"the training split has {len(splits.train)} images, too few to quantize by ({MIN_CALIBRATION_IMAGES});"
            " add images, or give --int8.no-enabled"
        )
    task.check(config, splits, distillation)


def _check_latency_budget(config: RunConfig) -> None:
    teacher, student = config.teacher, config.student
    if teacher.max_ms or teacher.on:
        raise UserError(
            "--teacher.max-ms, --teacher.on: the budget is for the student; give --student.max-ms"
        )
    if student.on and not student.max_ms:
        raise UserError(f"--student.on {student.on}: says where --student.max-ms holds; give both")
    if student.max_ms and student.weights:
        raise UserError(
            "--student.weights: are those of one network, and --student.max-ms chooses among several; choose one"
        )


def _check_options(name: str, config: TrainConfig) -> None:
    if config.schedule == "plateau" and not config.eval_every:
        raise UserError(
            f"--{name}.schedule plateau: needs validation scores on the way; give --{name}.eval-every"
        )
    if config.compile and config.checkpoint_activations:
        raise UserError(f"--{name}.compile: does not go with --{name}.checkpoint-activations; choose one")


def _check_batch(name: str, config: TrainConfig, processes: int) -> None:
    if config.batch_size % (processes * config.accumulate):
        raise UserError(
            f"--{name}.batch-size {config.batch_size}: does not divide into {processes} process(es) ×"
            f" {config.accumulate} micro-batch(es)"
        )
    if config.batch_size // config.accumulate < 2:
        raise UserError(
            f"--{name}.batch-size {config.batch_size}: leaves one image to a micro-batch, where the batch norm of the"
            " 1×1 pooling needs two or more"
        )
