"""The valid positions of a network's feature maps, computed from the valid pixels of its images."""

import torch
from torch import Tensor
from torch.nn import functional as F

from deploy.errors import UserError


class ValidMaps:
    """The valid pixels of a batch at the size of any feature map.

    Along an axis of H pixels, position i of h covers the pixels from ⌊i·H/h⌋ up to but excluding ⌈(i+1)·H/h⌉, as in
    adaptive pooling, and is valid if one of them is. So an image with a valid pixel has a valid position on every map,
    however coarse. These are the cells of strided convolutions whose strides divide the image size, and those of
    pyramid pooling; if a network pads its images, they are off by at most the padding.

    Args:
        valid: bool N×H×W.
    """

    def __init__(self, valid: Tensor) -> None:
        self._valid = valid
        self._maps: dict[tuple[int, ...], Tensor] = {}

    def of(self, x: Tensor) -> Tensor:
        """The valid positions of a feature map.

        Args:
            x: maps N×C×h×w, or vectors N×C, which see the whole image.

        Returns:
            N×1×h×w or N×1: 1 at valid positions and 0 elsewhere, in the dtype of `x` but at least float32.

        Raises:
            UserError: `x` has another shape, or is not of these N images.
        """
        size = tuple(x.shape[2:])
        if len(x) != len(self._valid) or len(size) not in (0, 2):
            shape = "×".join(map(str, x.shape))
            raise UserError(
                f"masked batch norm: a norm reads {shape} of {len(self._valid)} images, neither maps N×C×h×w nor"
                " vectors N×C; leave out --*.masked-norm"
            )
        if size not in self._maps:
            self._maps[size] = self._at(size).to(x.device)
        return self._maps[size].to(x.dtype if x.dtype.itemsize > 4 else torch.float32)

    def _at(self, size: tuple[int, ...]) -> Tensor:
        pixels = self._valid.float()
        if not size:
            return pixels.flatten(1).amax(1, keepdim=True)
        return F.adaptive_max_pool2d(pixels.unsqueeze(1), size)
