"""The task loss: a sum of losses against labels or other targets, written as in `distill.losses.expression`."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from deploy.errors import UserError
from distill.losses.expression import Term, parse_terms
from distill.losses.registry import GRASP_LOSSES, SEGMENTATION_LOSSES, Loss


def task_methods(task: str) -> Mapping[str, Loss]:
    """The losses against the truth of a task, "segmentation" or "grasp"."""
    return GRASP_LOSSES if task == "grasp" else SEGMENTATION_LOSSES


def parse_task_terms(text: str, methods: Mapping[str, Loss] = SEGMENTATION_LOSSES) -> tuple[Term, ...]:
    """The terms of `--loss.task`, such as `ce + 0.5*dice`.

    Args:
        text: a sum of losses.
        methods: the losses of the task, `SEGMENTATION_LOSSES` or `GRASP_LOSSES`.

    Raises:
        UserError: as `parse_terms`, naming the field.
    """
    try:
        return parse_terms(
            text, methods, "ce + 0.5*dice" if methods is SEGMENTATION_LOSSES else next(iter(methods))
        )
    except UserError as error:
        raise UserError(f"--loss.task: {error}") from None


def task_loss(
    terms: Sequence[Term], *compared: Tensor | None, methods: Mapping[str, Loss] = SEGMENTATION_LOSSES
) -> Tensor:
    """The weighted sum of the terms, a scalar.

    Args:
        terms: one or more, as parsed.
        compared: what all losses of `methods` take: logits, label, valid and class weights, or maps, target and valid.
        methods: where the terms' losses are found.
    """
    return torch.stack(
        [term.weight * methods[term.loss].function(*compared, **term.options) for term in terms]
    ).sum()
