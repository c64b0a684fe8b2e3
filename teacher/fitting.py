"""Images in the sizes that networks take, which many want to be multiples of their stride."""

from torch import Tensor
from torch.nn import functional as F


def nearest_multiple(side: int, multiple: int) -> int:
    """The multiple that is nearest to a side, and no less than one of them."""
    return max(1, round(side / multiple)) * multiple


def fitted(x: Tensor, multiple: int) -> Tensor:
    """Resize N×C×H×W bilinearly so that both sides are the nearest multiples; `x` itself if they are multiples.

    Resized, not padded: maps of the result cover the image exactly.
    """
    return resized(x, (nearest_multiple(x.shape[-2], multiple), nearest_multiple(x.shape[-1], multiple)))


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize N×C×H×W bilinearly; `x` itself if it has the size."""
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
