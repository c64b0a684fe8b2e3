"""The distillation loss of a run: a weighted sum of losses, with the adapters and memories that they need."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deploy.errors import UserError
from distill.data.sample import Batch
from distill.losses.common import at_size_of
from distill.losses.distillation.cirkd import MemoryBank
from distill.losses.distillation.common import Pixels
from distill.losses.expression import Term, parse_terms
from distill.losses.pseudo_labels import PseudoLabels
from distill.losses.registry import DISTILLATION_LOSSES
from teacher.pspnet import Output

VOID = "void"
"""Name of the map N×1×h×w among a teacher's features in which its void is above the data's classes where it is > 0."""


class TeacherOutput(NamedTuple):
    """Output of the teacher for a batch, without gradient."""

    logits: Tensor
    """Floating N×K×h×w at the teacher's output stride."""
    features: Mapping[str, Tensor] = {}
    """Floating feature maps N×C×h×w by name; `VOID` says where pixels show none of the data's classes."""


@dataclass(frozen=True)
class Shapes:
    """Numbers of channels of a network's maps: its logits, and its features by name."""

    logits: int
    features: Mapping[str, int]


class DistillationTerms(NamedTuple):
    """The distillation losses of a run, parsed."""

    main: tuple[Term, ...]
    """On the logits and features of the output."""
    aux: tuple[Term, ...] = ()
    """On the logits of the student's auxiliary head."""
    unlabeled: tuple[Term, ...] = ()
    """In place of `main` in images without labels; none: `main` there, too."""
    unlabeled_aux: tuple[Term, ...] = ()
    """In place of `aux` in images without labels; none: `aux` there, too."""

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features that the terms compare, without repetitions."""
        terms = (*self.main, *self.unlabeled)
        return tuple(dict.fromkeys(term.feature for term in terms if term.feature is not None))

    @property
    def by_option(self) -> dict[str, tuple[Term, ...]]:
        """The terms by the option that gives them, for messages."""
        options = ("loss", "aux", "unlabeled-loss", "unlabeled-aux")
        return {f"--distill.{name}": terms for name, terms in zip(options, self, strict=True)}


def parse_distillation(
    loss: str, aux: str = "", unlabeled_loss: str = "", unlabeled_aux: str = ""
) -> DistillationTerms:
    """Parse the fields of `DistillConfig` by these names; all but `loss` may be empty.

    Raises:
        UserError: as `parse_terms`, or a term of an auxiliary head compares features.
    """
    return DistillationTerms(
        parse_terms(loss),
        _logit_terms("--distill.aux", aux),
        parse_terms(unlabeled_loss) if unlabeled_loss.strip() else (),
        _logit_terms("--distill.unlabeled-aux", unlabeled_aux),
    )


class DistillationLoss(nn.Module):
    """Weighted sum of distillation losses, with their 1×1 adapters and memories.

    An adapter maps the student's features to the teacher's channels (FitNets, arXiv:1412.6550) and is trained with the
    student. It is used in training only: no student checkpoint or bundle holds it. It is one 1×1 convolution, or with
    the option `layers=2` of a loss two of them, with a batch norm and a ReLU between (CIRKD, arXiv:2204.06986).

    Args:
        terms: on logits and features, and on the logits of the auxiliary head (see `distill.losses.expression`).
        student: channels of the student's maps.
        teacher: channels of the teacher's maps.
        trust: "label" weighs each pixel by the probability that the teacher assigns to its label; "everywhere" weighs
            all pixels alike. Pixels without a label weigh 1.
        pseudo_labels: weighs pixels without a label, and gives losses that need labels the teacher's; by default they
            all weigh alike.
        known: the classes that the teacher has, if not all: losses on logits compare these alone, and pixels that are
            labeled with another class do not count.

    Raises:
        UserError: student and teacher differ in the number of classes, one of them lacks a feature (the message lists
            those that it has), or `layers` is neither 1 nor 2.
    """

    def __init__(
        self,
        terms: DistillationTerms,
        student: Shapes,
        teacher: Shapes,
        trust: str = "everywhere",
        pseudo_labels: PseudoLabels | None = None,
        known: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.pseudo_labels = pseudo_labels or PseudoLabels()
        if student.logits != teacher.logits:
            raise UserError(
                f"the teacher has {teacher.logits} classes, the student {student.logits}; train both on one data set"
            )
        self.terms = terms
        self.num_classes = student.logits
        self.trust = trust
        places = {number: place for place, number in enumerate(known or range(self.num_classes))}
        self._some = len(places) < self.num_classes
        self._known = nn.Buffer(torch.tensor(list(places)), persistent=False)
        table = [places.get(number, -1) for number in range(self.num_classes)]
        self._places = nn.Buffer(torch.tensor(table), persistent=False)
        self.adapters = nn.ModuleDict()
        self.memories = nn.ModuleDict()
        options = ["--distill.loss"] * len(terms.main) + ["--distill.unlabeled-loss"] * len(terms.unlabeled)
        for index, term in enumerate((*terms.main, *terms.unlabeled)):
            if term.feature is None:
                continue
            from_, to = (
                _channels(options[index], term.feature, shapes, who)
                for shapes, who in ((student, "student"), (teacher, "teacher"))
            )
            if DISTILLATION_LOSSES[term.loss].adapts:
                layers = int(term.options.get("layers", 1))
                self.adapters[str(index)] = _adapter(options[index], from_, to, layers)
            if DISTILLATION_LOSSES[term.loss].memory:
                self.memories[str(index)] = MemoryBank(self.num_classes, to)

    def forward(self, output: Output, teacher: TeacherOutput, batch: Batch) -> Tensor:
        """Compute the loss of a batch.

        Args:
            output: the student's output, with the features that the terms name.
            teacher: the teacher's output for the same images.
            batch: labels and valid pixels, with a label or without.

        Returns:
            A scalar, the mean over the valid pixels of the batch; 0, with zero gradient, if no pixel is valid.
        """
        labeled, unlabeled = self.parts(output, teacher, batch)
        return labeled + unlabeled

    def parts(self, output: Output, teacher: TeacherOutput, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss in two parts, of images with labels and without any: scalars whose sum is that of `forward`."""
        known, label = self._seen(teacher, batch), batch.label
        weight = known.float()
        if self.trust == "label":
            weight = weight * label_probability(teacher.logits, label, batch.labeled)
        if batch.unlabeled is not None:
            seen, counts = self.pseudo_labels(teacher.logits, label)
            weight = torch.where(batch.unlabeled, counts * known, weight)
            label = torch.where(batch.unlabeled, seen, label)
        pixels = Pixels(weight, label, self.num_classes)
        main, aux, unlabeled, unlabeled_aux = self.terms
        losses = self._sum(main, aux, 0, output, teacher, pixels)
        nowhere = torch.zeros_like(batch.valid)
        without = (nowhere if batch.unlabeled is None else batch.unlabeled).flatten(1).any(1)
        # in batches with labels alone, too: every process has a gradient of all adapters, or the others wait for it
        if unlabeled or unlabeled_aux:
            own = unlabeled or main, unlabeled_aux or aux, len(main) if unlabeled else 0
            losses = torch.where(without, self._sum(*own, output, teacher, pixels), losses)
        # An image counts by its valid pixels, as in the task loss; pixels where the teacher is trusted less count less.
        mass = weight.flatten(1).sum(1)
        sums, valid = losses * mass, batch.valid.sum().clamp(min=1)
        if batch.unlabeled is None:
            return sums.sum() / valid, sums.new_zeros(())
        return (sums * ~without).sum() / valid, (sums * without).sum() / valid

    def _seen(self, teacher: TeacherOutput, batch: Batch) -> Tensor:
        """The valid pixels, bool N×H×W, of which the teacher can say something: of classes that it has."""
        seen = batch.valid
        if VOID in teacher.features:
            seen = seen & (at_size_of(batch.label, teacher.features[VOID])[:, 0] <= 0)
        if self._some:
            has_class = self._places[torch.where(batch.labeled, batch.label, self._known[0])] >= 0
            seen = seen & has_class
        return seen

    def _on_logits(self, student: Tensor, teacher: Tensor, pixels: Pixels) -> tuple[Tensor, Tensor, Pixels]:
        """The logits and labels of the classes that the teacher has."""
        if not self._some:
            return student, teacher, pixels
        label = self._places[torch.where(pixels.weight > 0, pixels.label, self._known[0])].clamp(min=0)
        known = Pixels(pixels.weight, label, len(self._known))
        return student[:, self._known], teacher[:, self._known], known

    def _sum(
        self,
        main: Sequence[Term],
        aux: Sequence[Term],
        first: int,
        output: Output,
        teacher: TeacherOutput,
        pixels: Pixels,
    ) -> Tensor:
        """The weighted sums of terms, one per image; `first` is the index of the first of `main` among all terms."""
        losses = sum(
            term.weight * self._loss(i, term, output, teacher, pixels) for i, term in enumerate(main, first)
        )
        if output.aux is not None:
            head = Output(output.aux, None)
            losses = losses + sum(term.weight * self._loss(None, term, head, teacher, pixels) for term in aux)
        return cast("Tensor", losses)  # there is at least one term

    def _loss(
        self, index: int | None, term: Term, output: Output, teacher: TeacherOutput, pixels: Pixels
    ) -> Tensor:
        """The losses of one term, one per image; `index` finds the term's adapter and memory."""
        loss, options = DISTILLATION_LOSSES[term.loss], dict[str, Any](term.options)
        if term.feature is None:
            return _in_full(loss.function, *self._on_logits(output.logits, teacher.logits, pixels), **options)
        features = output.features[term.feature]
        if str(index) in self.adapters:
            features = self.adapters[str(index)](features)
        if str(index) in self.memories:
            options["memory"] = self.memories[str(index)]
        return _in_full(loss.function, features, teacher.features[term.feature], pixels, **options)


def _in_full(function: Callable[..., Tensor], student: Tensor, *others: Any, **options: Any) -> Tensor:
    """A loss without mixed types, in which its matrix products would lose what student and teacher differ by."""
    with torch.autocast(student.device.type, enabled=False):
        return function(student, *others, **options)


def _logit_terms(option: str, text: str) -> tuple[Term, ...]:
    """The terms of an option for the auxiliary head, which are losses on logits; an empty text has none."""
    terms = parse_terms(text) if text.strip() else ()
    for term in terms:
        if term.feature is not None:
            raise UserError(
                f"{option} {text}: {term.loss}({term.feature}) compares features; give losses on logits"
            )
    return terms


@torch.no_grad()
def label_probability(logits: Tensor, label: Tensor, labeled: Tensor) -> Tensor:
    """The probability that the teacher assigns to each pixel's label.

    Args:
        logits: of the teacher, floating N×K×h×w; upsampled bilinearly to the label.
        label: int64 N×H×W, any value where not known.
        labeled: bool N×H×W.

    Returns:
        Float32 or float64 N×H×W in 0..1, without gradient; 1 where the label is not known.
    """
    target = torch.where(labeled, label, -100)
    return torch.exp(-F.cross_entropy(at_size_of(label, logits), target, reduction="none"))


@torch.no_grad()
def shapes_of(network: nn.Module, image: Tensor) -> Shapes:
    """The channels of a network's maps, found by running it in evaluation mode on an image N×C×H×W."""
    training = network.training
    output = network.eval()(image)
    network.train(training)
    features = {name: maps.shape[1] for name, maps in output.features.items() if name != VOID}
    return Shapes(output.logits.shape[1], features)


def _adapter(option: str, from_: int, to: int, layers: int) -> nn.Module:
    if layers not in (1, 2):
        raise UserError(f"{option}: layers={layers}: an adapter has 1 or 2")
    last = nn.Conv2d(from_ if layers == 1 else to, to, 1, bias=False)
    if layers == 1:
        return last
    return nn.Sequential(nn.Conv2d(from_, to, 1, bias=False), nn.BatchNorm2d(to), nn.ReLU(), last)


def _channels(option: str, feature: str, shapes: Shapes, who: str) -> int:
    if feature not in shapes.features:
        raise UserError(
            f"{option}: the {who} has no feature {feature!r}; it has {', '.join(shapes.features) or 'none'}"
        )
    return shapes.features[feature]
