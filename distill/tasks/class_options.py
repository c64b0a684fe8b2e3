"""Refusal of options and losses that are for classes, for data without classes."""

from collections.abc import Sequence

from deploy.errors import UserError
from distill.config import RunConfig
from distill.losses.distillation_loss import DistillationTerms


def refuse_class_options(
    config: RunConfig, has: str, distillation: DistillationTerms, allowed: Sequence[str]
) -> None:
    """Refuse options and losses that are for classes.

    Args:
        config: configuration of the run.
        has: what the data has instead of classes, as a plural for messages.
        distillation: the run's distillation losses.
        allowed: names of the distillation losses that need no classes.

    Raises:
        UserError: naming the first option or loss that is for classes.
    """
    for option, terms in distillation.by_option.items():
        for term in terms:
            if term.loss not in allowed:
                names = ", ".join(allowed)
                raise UserError(f"{option}: {term.loss} is for classes, the data has {has}; use {names}")
    loss, distill = config.loss, config.distill
    if config.ready_made:
        options = ("bundle", "classes", "mean", "std")
        option = next((name for name in options if getattr(config.teacher, name)), "pretrained")
        raise UserError(
            f"--teacher.{option}: is for classes, the data has {has}; train the teacher here, or give --teacher.weights"
        )
    if distill.trust == "label" or distill.combine == "label":
        raise UserError(
            f"--distill.trust and --distill.combine label: are for classes, the data has {has}; leave them out"
        )
    if distill.teachers:
        raise UserError(
            f"--distill.teachers: join probabilities of classes, the data has {has}; give one teacher"
        )
    if loss.class_weights != "none" or loss.class_weight_values:
        raise UserError(f"--loss.class-weights: are for classes, the data has {has}; leave them out")
    _refuse_data_options(config, has)


def _refuse_data_options(config: RunConfig, has: str) -> None:
    """The same for options of images and crops."""
    data, augment = config.data, config.augment
    if data.resize != "stretch":
        raise UserError(f"--data.resize {data.resize}: is for segmentation, the data has {has}; use stretch")
    if data.normalize != "set":
        raise UserError(
            f"--data.normalize {data.normalize}: is for segmentation, the data has {has}; use set"
        )
    if data.unlabeled or data.labels:
        raise UserError(
            f"--data.unlabeled and --data.labels: are for segmentation, the data has {has}; leave them out"
        )
    if augment.balance or augment.max_no_data < 1:
        raise UserError(
            f"--augment.balance and --augment.max-no-data: are for classes, the data has {has}; leave them out"
        )
