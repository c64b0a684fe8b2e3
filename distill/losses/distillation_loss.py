"""What a student learns from its teacher: the sum of a run's distillation losses, and what those train or remember."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deploy.errors import UserError
from distill.data.sample import Batch
from distill.losses.common import at_least_float32
from distill.losses.distillation.cirkd import MemoryBank
from distill.losses.distillation.common import Pixels
from distill.losses.expression import Term, parse_terms
from distill.losses.registry import DISTILLATION_LOSSES
from teacher.pspnet import Output


class TeacherOutput(NamedTuple):
    """What the teacher says of a batch, without gradient."""

    logits: Tensor
    """N×K×h×w at the teacher's output stride."""
    features: Mapping[str, Tensor] = {}
    """Feature maps N×C×h×w by name."""


@dataclass(frozen=True)
class Shapes:
    """Maps of a network: their numbers of channels."""

    logits: int
    features: Mapping[str, int]


class DistillationLoss(nn.Module):
    """Weighted sum of distillation losses, with their 1×1 adapters and memories.

    An adapter maps the student's features to the teacher's channels (FitNets, arXiv:1412.6550), and is trained with the
    student. It belongs to the training alone: no student checkpoint or bundle holds it.

    Args:
        main: terms on the logits and features (see `distill.losses.expression`).
        aux: terms on the logits of the student's auxiliary head.
        student, teacher: what the two return.
        trust: "label" weighs each pixel by the probability that the teacher gives to its label.

    Raises:
        UserError: other numbers of classes, or a feature that one of the two has not, listing those that it has.
    """

    def __init__(
        self,
        main: Sequence[Term],
        aux: Sequence[Term],
        student: Shapes,
        teacher: Shapes,
        trust: str = "everywhere",
    ) -> None:
        super().__init__()
        if student.logits != teacher.logits:
            raise UserError(
                f"the teacher has {teacher.logits} classes, the student {student.logits}; train both on one data set"
            )
        self.main, self.aux = tuple(main), tuple(aux)
        self.num_classes = student.logits
        self.trust = trust
        self.adapters = nn.ModuleDict()
        self.memories = nn.ModuleDict()
        for index, term in enumerate(self.main):
            if term.feature is None:
                continue
            from_, to = (
                _channels(term.feature, shapes, who)
                for shapes, who in ((student, "student"), (teacher, "teacher"))
            )
            if DISTILLATION_LOSSES[term.loss].adapts:
                self.adapters[str(index)] = nn.Conv2d(from_, to, 1, bias=False)
            if DISTILLATION_LOSSES[term.loss].memory:
                self.memories[str(index)] = MemoryBank(self.num_classes, to)

    def forward(self, output: Output, target: TeacherOutput, batch: Batch) -> Tensor:
        """Mean over the valid pixels of the batch; a scalar, 0 where none is valid."""
        weight = batch.valid.float()
        if self.trust == "label":
            weight = weight * label_probability(target.logits, batch.label, batch.valid)
        pixels = Pixels(weight, batch.label, self.num_classes)
        losses = sum(
            term.weight * self._loss(i, term, output, target, pixels) for i, term in enumerate(self.main)
        )
        if output.aux is not None:
            aux = Output(output.aux, None)
            losses = losses + sum(
                term.weight * self._loss(None, term, aux, target, pixels) for term in self.aux
            )
        # An image counts by its valid pixels, as in the task loss; where the teacher is trusted less it says less.
        mass = weight.flatten(1).sum(1)
        return (losses * mass).sum() / batch.valid.sum().clamp(min=1)

    def _loss(
        self, index: int | None, term: Term, output: Output, target: TeacherOutput, pixels: Pixels
    ) -> Tensor:
        method, options = DISTILLATION_LOSSES[term.loss], dict[str, Any](term.options)
        if term.feature is None:
            return method.function(output.logits, target.logits, pixels, **options)
        student, teacher = output.features[term.feature], target.features[term.feature]
        if str(index) in self.adapters:
            student = self.adapters[str(index)](student)
        if str(index) in self.memories:
            options["memory"] = self.memories[str(index)]
        return method.function(student, teacher, pixels, **options)


def features_of(terms: Sequence[Term]) -> tuple[str, ...]:
    """Names of the features that the terms compare, each once."""
    return tuple(dict.fromkeys(term.feature for term in terms if term.feature is not None))


def parse_aux_terms(text: str) -> tuple[Term, ...]:
    """The terms of `--distill.aux`: none for an empty text, else losses on logits.

    Raises:
        UserError: as `parse_terms`, or a term on features.
    """
    terms = parse_terms(text) if text.strip() else ()
    for term in terms:
        if term.feature is not None:
            raise UserError(
                f"--distill.aux {text}: {term.loss}({term.feature}) compares features; give losses on logits"
            )
    return terms


@torch.no_grad()
def label_probability(logits: Tensor, label: Tensor, valid: Tensor) -> Tensor:
    """The probability that the teacher gives to each pixel's label, N×H×W in 0..1; 1 where not valid."""
    logits = at_least_float32(logits)
    if logits.shape[-2:] != label.shape[-2:]:
        logits = F.interpolate(logits, label.shape[-2:], mode="bilinear", align_corners=False)
    return torch.exp(-F.cross_entropy(logits, torch.where(valid, label, -100), reduction="none"))


@torch.no_grad()
def shapes_of(network: nn.Module, image: Tensor) -> Shapes:
    """The maps of a network for an image N×C×H×W."""
    training = network.training
    output = network.eval()(image)
    network.train(training)
    return Shapes(output.logits.shape[1], {name: maps.shape[1] for name, maps in output.features.items()})


def _channels(feature: str, shapes: Shapes, who: str) -> int:
    if feature not in shapes.features:
        raise UserError(
            f"--distill.loss: the {who} has no feature {feature!r}; it has {', '.join(shapes.features) or 'none'}"
        )
    return shapes.features[feature]
