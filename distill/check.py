"""Mistakes in a configuration, found before anything is trained or written."""

from collections.abc import Iterator

from deploy.errors import UserError
from distill.config import RunConfig, TrainConfig
from distill.data.augment import check_augment


def check_config(config: RunConfig, processes: int) -> None:
    """Raise UserError naming the first field of `config` that makes no sense for that many processes."""
    check_augment(config.augment)
    problems = [
        *_range("data.size", min(config.data.size), 8),
        *_range("data.synthetic-counts", min(config.data.synthetic_counts), 1),
        *_range("export.opset", config.export.opset, 18),
        *_training_problems("teacher-train", config.teacher_train, processes),
        *_training_problems("student-train", config.student_train, processes),
    ]
    if config.loss.tau <= 0:
        problems.append(f"--loss.tau {config.loss.tau}: must be above 0")
    if problems:
        raise UserError(problems[0])


def _training_problems(name: str, config: TrainConfig, processes: int) -> Iterator[str]:
    minima = {"steps": 0, "batch_size": 1, "accumulate": 1, "warmup": 0, "workers": 0, "eval_every": 0}
    minima |= {"checkpoint_every": 1, "log_every": 1}
    for field, minimum in minima.items():
        yield from _range(f"{name}.{field.replace('_', '-')}", getattr(config, field), minimum)
    if not 0 <= config.ema < 1:
        yield f"--{name}.ema {config.ema}: must be in 0..1, below 1"
    if config.lr <= 0:
        yield f"--{name}.lr {config.lr}: must be above 0"
    parts = processes * max(config.accumulate, 1)
    if config.batch_size % parts:
        yield (
            f"--{name}.batch-size {config.batch_size}: does not divide into {processes} process(es) ×"
            f" {config.accumulate} micro-batch(es)"
        )
    elif config.batch_size // parts < 2:
        yield (
            f"--{name}.batch-size {config.batch_size}: leaves one image to a process and micro-batch, where the batch"
            " norm of the 1×1 pooling needs two or more"
        )


def _range(name: str, value: int, minimum: int) -> Iterator[str]:
    if value < minimum:
        yield f"--{name} {value}: must be at least {minimum}"
