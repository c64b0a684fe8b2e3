"""Images of any size through networks that halve and double theirs."""

from torch import Tensor
from torch.nn import functional as F


def padded(x: Tensor, multiple: int) -> Tensor:
    """N×C×H×W with zeros, the mean of a normalized image, below and to the right, up to multiples of `multiple`."""
    height, width = x.shape[-2:]
    below, right = -height % multiple, -width % multiple
    return F.pad(x, (0, right, 0, below)) if below or right else x


def cropped(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The upper left part of `size` (height, width) of N×C×H×W: what `padded` started from."""
    return x if tuple(x.shape[-2:]) == size else x[..., : size[0], : size[1]]


def size_of(x: Tensor) -> tuple[int, int]:
    """Height and width of N×C×H×W."""
    return x.shape[-2], x.shape[-1]
