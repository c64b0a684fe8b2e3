"""A teacher from elsewhere as a network of a run, with the run's normalization undone and its classes mapped."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill.distillation.class_map import ClassMap, mapped, void_margin
from distill.losses.distillation_loss import VOID
from teacher.pspnet import Output


@dataclass(frozen=True)
class Pixels:
    """Mean and deviation of each channel in raw units, by which a network's images are normalized."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class ReadyTeacher(nn.Module):
    """A network with its own normalization and classes as one of a run: it takes the run's normalized images.

    Args:
        network: returns `teacher.pspnet.Output`.
        source: names it for people.
        run: the run's normalization, which is undone.
        own: the network's; None if it takes raw units.
        fill: of each channel, in the units that the network takes: replaces pixels without data and padding, which are
            0 in normalized images.
        classes: its classes.
    """

    def __init__(
        self,
        network: nn.Module,
        source: str,
        run: Pixels,
        own: Pixels | None,
        fill: Sequence[float],
        classes: ClassMap,
    ) -> None:
        super().__init__()
        self.network, self.source, self.classes = network, source, classes
        self.in_channels = len(run.mean)
        self.run_mean, self.run_std = _column(run.mean), _column(run.std)
        self.own_mean = None if own is None else _column(own.mean)
        self.own_std = None if own is None else _column(own.std)
        self.fill = _column(fill)
        # in the state: it tells cached outputs under one map from those under another
        targets = [-1 if target is None else target for target in classes.targets]
        self.targets = nn.Buffer(torch.tensor([*targets, classes.outputs]))

    def forward(self, x: Tensor) -> Output:
        """Run the network.

        Args:
            x: images N×C×H×W, normalized as in the run.

        Returns:
            Logits N×K×h×w of the data's classes (see `distill.distillation.class_map.mapped`), the network's features
            and, if some of its classes are void, the feature `VOID`.
        """
        empty = (x == 0).all(1, keepdim=True)
        image = x * self.run_std + self.run_mean
        if self.own_mean is not None and self.own_std is not None:
            image = (image - self.own_mean) / self.own_std
        output = self.network(torch.where(empty, self.fill, image))
        features = dict(output.features)
        if self.classes.has_void:
            features[VOID] = void_margin(output.logits, self.classes)
        return Output(mapped(output.logits, self.classes), None, features)

    def with_network(self, network: nn.Module) -> "ReadyTeacher":
        """The same teacher around another form of its network."""
        other = copy.copy(self)
        other._modules = {**self._modules, "network": network}
        return other


def _column(values: Sequence[float]) -> nn.Buffer:
    return nn.Buffer(torch.tensor(values).view(-1, 1, 1))
