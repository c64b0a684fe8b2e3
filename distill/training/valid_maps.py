"""Which positions of a network's feature maps count, from which pixels of its images do."""

import torch
from torch import Tensor
from torch.nn import functional as F

from deploy.errors import UserError


class ValidMaps:
    """The valid pixels of a batch at the size of any feature map.

    Position i of a line of h cells stands for the pixels from ⌊i·H/h⌋ up to, not including, ⌈(i+1)·H/h⌉ of a line of
    H, as in adaptive pooling, and it counts where one of these is valid. So an image with a valid pixel has a position
    that counts on every map, however coarse. These are the cells of strided convolutions whose strides divide the
    image, and those of pyramid pooling; where a network pads its images they are off by the padding at most.

    Args:
        valid: bool N×H×W.
    """

    def __init__(self, valid: Tensor) -> None:
        self._valid = valid
        self._maps: dict[tuple[int, ...], Tensor] = {}

    def of(self, x: Tensor) -> Tensor:
        """1 where a position of `x` counts and 0 elsewhere, in its dtype but at least float32.

        N×1×h×w of a map N×C×h×w, and N×1 of vectors N×C, which see the whole image.

        Raises:
            UserError: `x` is neither, or not of these images one by one.
        """
        size = tuple(x.shape[2:])
        if len(x) != len(self._valid) or len(size) not in (0, 2):
            shape = "×".join(map(str, x.shape))
            raise UserError(
                f"masked batch norm: a norm reads {shape} of {len(self._valid)} images, neither maps N×C×h×w nor"
                " vectors N×C of each; leave out --*.masked-norm"
            )
        if size not in self._maps:
            self._maps[size] = self._at(size).to(x.device)
        return self._maps[size].to(x.dtype if x.dtype.itemsize > 4 else torch.float32)

    def _at(self, size: tuple[int, ...]) -> Tensor:
        pixels = self._valid.float()
        if not size:
            return pixels.flatten(1).amax(1, keepdim=True)
        return F.adaptive_max_pool2d(pixels.unsqueeze(1), size)
