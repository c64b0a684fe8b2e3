"""Padding and cropping, which let networks that need multiples of a size take images of any size."""

from torch import Tensor
from torch.nn import functional as F


def padded(x: Tensor, multiple: int) -> Tensor:
    """Pad N×C×H×W below and to the right with zeros, the mean of a normalized image, to multiples of `multiple`."""
    height, width = x.shape[-2:]
    below, right = -height % multiple, -width % multiple
    return F.pad(x, (0, right, 0, below)) if below or right else x


def cropped(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut N×C×H×W to its upper left `size` (height, width), which undoes `padded`."""
    return x if tuple(x.shape[-2:]) == size else x[..., : size[0], : size[1]]


def size_of(x: Tensor) -> tuple[int, int]:
    """Height and width of N×C×H×W."""
    return x.shape[-2], x.shape[-1]
