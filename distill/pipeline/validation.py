"""Rules that tie fields of a configuration to one another, to the data and to the machine.

Rules for a single field are in its section of the configuration (`distill.config`).
"""

import math
from dataclasses import replace

from deploy.errors import UserError
from deploy.evaluation.labeled_data import DATA
from deploy.quantize.limits import MIN_CALIBRATION_IMAGES
from distill.config import DataConfig, RunConfig, TrainConfig
from distill.data.splits import Splits, files_of
from distill.data.stats import Stats
from distill.data.unlabeled import check_batch, order_of
from distill.export_config import MAX_INT8_OPSET
from distill.losses.distillation_loss import DistillationTerms
from distill.losses.expression import format_terms
from distill.tasks.task import TrainingTask
from teacher.external.own_network import is_own


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
    if config.data.unlabeled and (config.no_teacher or not config.distill.weight):
        other = "--no-teacher" if config.no_teacher else "--distill.weight 0"
        raise UserError(
            f"--data.unlabeled {config.data.unlabeled}: a teacher says what these images show, and {other} has none;"
            " leave one of the two out"
        )
    if config.int8.enabled and config.export.opset > MAX_INT8_OPSET:
        raise UserError(
            f"--export.opset {config.export.opset}: INT8 needs opset {MAX_INT8_OPSET} or older; give that, or"
            " --int8.no-enabled"
        )
    if config.data.scale != "linear" and config.data.normalize != "set":
        raise UserError(
            f"--data.scale {config.data.scale}: does not go with --data.normalize {config.data.normalize}, which leaves"
            " nothing for the graph to scale; use one of the two"
        )
    _check_latency_budget(config)
    _check_ready_made(config)
    for name, training in (("teacher-train", config.teacher_train), ("student-train", config.student_train)):
        check_training(name, training, processes)


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
    if not config.no_teacher:
        check_batch("student-train", config.student_train.batch_size, order_of(splits, config.data))


def fit_crop(config: RunConfig) -> tuple[RunConfig, list[str]]:
    """A crop no larger than the images at network scale: what lies outside an image is padding, and teaches nothing.

    Images that are tiled keep their own sizes, and their crops.

    Returns:
        The configuration, and a line that says what was changed, if anything was.
    """
    crop, size = config.augment.crop, config.data.size
    fitted = min(crop[0], size[0]), min(crop[1], size[1])
    if config.data.resize == "tile" or fitted == crop:
        return config, []
    line = (
        f"crops are {fitted[0]}×{fitted[1]}: --augment.crop {crop[0]} {crop[1]} is larger than --data.size"
        f" {size[0]} {size[1]}, to which images are resized"
    )
    return replace(config, augment=replace(config.augment, crop=fitted)), [line]


def check_class_pixels(config: DataConfig, splits: Splits, stats: Stats) -> list[str]:
    """Check that each class has a valid training pixel.

    Generated scenes may lack a class, as may files with `config.allow_absent_classes`.

    Returns:
        A line that names classes that are allowed to be absent.

    Raises:
        UserError: classes have none.
    """
    pairs = zip(splits.classes, stats.class_pixels, strict=False)  # tasks without classes count none
    absent = ", ".join(info.name for info, pixels in pairs if not pixels)
    if not absent:
        return []
    if config.allow_absent_classes or not files_of(splits.train, 0):
        return [f"warning: no training pixel is labeled {absent}"]
    raise UserError(
        f"no valid pixel of the {stats.images} training images is labeled {absent}; mend the labels, or give"
        " --data.allow-absent-classes"
    )


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


def _check_ready_made(config: RunConfig) -> None:
    teacher, student = config.teacher, config.student
    for field in ("bundle", "mean", "std", "classes"):
        if getattr(student, field):
            raise UserError(f"--student.{field}: is for teachers; give --teacher.{field}")
        if config.no_teacher and getattr(teacher, field):
            raise UserError(f"--teacher.{field}: does not go with --no-teacher; choose one")
    if teacher.bundle and teacher.weights:
        raise UserError("--teacher.bundle: does not go with --teacher.weights; choose one")
    if (teacher.mean or teacher.std) and not (teacher.bundle or is_own(teacher.arch)):
        raise UserError(
            "--teacher.mean, --teacher.std: are for an ONNX file, which is given as --teacher.bundle, or a network of"
            " your own (--teacher.arch package.module:function)"
        )
    if config.ready_made and config.distill.teachers:
        raise UserError(
            "--distill.teachers: does not go with a teacher that is used as it is (--teacher.bundle, --teacher.classes,"
            " or --teacher.pretrained without steps); choose one"
        )


def check_terms(config: RunConfig, terms: DistillationTerms) -> None:
    """Raise `UserError` if a loss compares features of a teacher that gives outputs alone."""
    if not (config.ready_made and config.teacher.bundle):
        return
    for option, some in terms.by_option.items():
        if any(term.feature is not None for term in some):
            raise UserError(
                f"{option} {format_terms(some)}: compares features, and --teacher.bundle gives outputs alone; give"
                " losses on logits, such as kl(t=2)"
            )


def without_teacher_training(config: RunConfig) -> RunConfig:
    """The configuration without steps for a teacher that is used as it is."""
    if not config.ready_made:
        return config
    return replace(config, teacher_train=replace(config.teacher_train, steps=0))


def check_training(name: str, config: TrainConfig, processes: int) -> None:
    """Check the settings of one training against one another.

    Args:
        name: of the training, as on the command line.
        config: its settings.
        processes: how many train together.

    Raises:
        UserError: naming the first field that does not go with another, or with that many processes.
    """
    _check_options(name, config)
    _check_batch(name, config, processes)


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
