"""What a network of another package brings with it, and the packages themselves."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from deploy.errors import UserError
from teacher.weights import RGB

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of ImageNet's channels R G B in 0..255."""
SUMS = 1e-3
"""Largest distance from 1 of the sum of probabilities, which half precision rounds."""


@dataclass(frozen=True)
class Origin:
    """What trained weights of a whole network say of themselves."""

    source: str
    """Where they come from, for messages."""
    classes: tuple[str, ...]
    """Names of their classes."""
    mean: tuple[float, ...]
    """Of each channel, in 0..255, by which their images were normalized."""
    std: tuple[float, ...]


def require(package: str, extra: str, what: str) -> Any:
    """Import an optional package.

    Args:
        package: its import name.
        extra: the extra of this project that installs it.
        what: what needs it, for the message.

    Raises:
        UserError: it is not installed, or cannot be imported.
    """
    if find_spec(package) is None:
        raise UserError(f"{what}: needs {package}; pip install 'edgedistill[{extra}]'")
    try:
        return import_module(package)
    except Exception as error:  # whatever an installation that does not fit raises
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{what}: {package} cannot be imported ({reason}); install it again") from error


def adapt_first_convolution(network: nn.Module, in_channels: int) -> None:
    """Let a network take images of `in_channels`: its first convolution is summed or repeated, as timm does.

    Raises:
        UserError: the network has no convolution for images, or one that cannot be adapted.
    """
    old = next((each for each in network.modules() if isinstance(each, nn.Conv2d)), None)
    if old is None:
        raise UserError(f"{type(network).__name__}: has no convolution to adapt to {in_channels} channels")
    if in_channels == old.in_channels:
        return
    if old.in_channels != RGB:
        raise UserError(
            f"{type(network).__name__}: takes {old.in_channels} channels, the data has {in_channels}; only networks of"
            " three channels can be adapted"
        )
    if old.groups != 1:
        raise UserError(
            f"{type(network).__name__}: its first convolution takes each channel alone, so it cannot be adapted to"
            f" {in_channels} channels; choose another network"
        )
    # the module itself stays: it may be of a type of its own, as BiT's standardizes its weights
    old.weight = nn.Parameter(adapt_input_conv(in_channels, old.weight.detach()), old.weight.requires_grad)
    old.in_channels = in_channels
    for module in network.modules():  # transformers compares the image with the number that it was built for
        if getattr(module, "num_channels", None) == RGB:
            module.__dict__["num_channels"] = in_channels


def noise(shape: tuple[int, ...]) -> Tensor:
    """Normalized images for trying a network: normal noise, the same each time, that leaves torch's own alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def check_logits(source: str, scores: Tensor) -> None:
    """Refuse a network that returns probabilities, which losses would take for logits.

    Args:
        source: names the network in the message.
        scores: what it returns for some image, N×K×h×w.

    Raises:
        UserError: they are at least 0 and have the sum 1 at each pixel.
    """
    if scores.shape[1] > 1 and bool((scores >= 0).all()) and bool(((scores.sum(1) - 1).abs() <= SUMS).all()):
        raise UserError(
            f"{source}: returns probabilities, whose sum is 1; give it without its softmax, as logits"
        )


def load_where_it_fits(
    network: nn.Module, state: Mapping[str, Tensor], heads: Iterable[str], source: str
) -> list[str]:
    """Load tensors into a network whose last layers may be for other classes.

    Args:
        network: the network.
        state: tensors by its names.
        heads: beginnings of names of the layers that may be missing, left over, or have another shape.
        source: names the tensors in messages.

    Returns:
        The names of the network's tensors that were not loaded, all of them of its heads.

    Raises:
        UserError: another tensor is missing, left over, or has another shape.
    """
    wanted, heads = network.state_dict(), tuple(heads)
    new = [name for name in wanted if name not in state or state[name].shape != wanted[name].shape]
    new = [name for name in new if not name.endswith("num_batches_tracked")]
    wrong = [
        name for name in [*new, *(name for name in state if name not in wanted)] if not name.startswith(heads)
    ]
    if wrong:
        raise UserError(f"{source}: {len(wrong)} tensors do not fit the network, first {wrong[0]}")
    network.load_state_dict({k: v for k, v in state.items() if k in wanted and k not in new}, strict=False)
    return new
