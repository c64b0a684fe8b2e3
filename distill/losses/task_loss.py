"""The task loss: a sum of losses against labels or other targets, written as in `distill.losses.expression`."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from deploy.errors import UserError
from distill.losses.common import at_size_of
from distill.losses.expression import Term, parse_terms
from distill.losses.registry import Loss


def parse_task_terms(text: str, losses: Mapping[str, Loss]) -> tuple[Term, ...]:
    """The terms of `--loss.task`, such as `ce + 0.5*dice`.

    Args:
        text: a sum of losses.
        losses: those of the task.

    Raises:
        UserError: as `parse_terms`, naming the field.
    """
    names = list(losses)
    example = " + 0.5*".join([names[0], *(["dice"] if "dice" in names else [])])
    try:
        return parse_terms(text, losses, example)
    except UserError as error:
        raise UserError(f"--loss.task: {error}") from None


def task_loss(
    terms: Sequence[Term], losses: Mapping[str, Loss], outputs: Tensor, target: Tensor, *others: Tensor | None
) -> Tensor:
    """The weighted sum of the terms, a scalar.

    Args:
        terms: one or more, as parsed.
        losses: the losses by the names that the terms use.
        outputs: what all of `losses` take first: logits or maps N×C×h×w; resized to the target once for all terms.
        target: their second: label N×H×W, or maps N×C×H×W.
        others: the rest: valid and class weights, or valid.
    """
    compared = (at_size_of(target, outputs), target, *others)
    return torch.stack(
        [term.weight * losses[term.loss].function(*compared, **term.options) for term in terms]
    ).sum()
