"""Folding the pyramid of a PSPNet into its head: the same outputs with about half of the head's work.

PSPNet concatenates the features x with upsampled poolings u(p₁) … u(p₄) and convolves the result. Convolution is
linear, so conv([x, u(p₁), …]) = conv₀(x) + Σ conv_b(u(p_b)). A pooling has only 1 to 36 cells: applying the nine taps
of the kernel to the cells before upsampling, not to every pixel after it, makes the pooled half of the convolution
nearly free. With U the 1-D bilinear upsampling and S_t the shift of tap t along an axis,

    conv_b(u(p)) = Σ_{s,t} (S_s U_h) · (W_{s,t} p) · (S_t U_w)ᵀ

which is a 1×1 convolution of the cells and two products with constant matrices. The head's batch norm is merged into
the weights.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from teacher.pooling import upsampling_matrix
from teacher.pspnet import PSPNet, PyramidPooling


def fold_pyramid(network: PSPNet) -> PSPNet:
    """Return a copy of `network` for inference that computes the same, with the pyramid folded into the head."""
    folded = copy.deepcopy(network).eval()
    convolution, norm, activation = folded.head
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    fused = fuse_conv_bn_eval(convolution, norm)
    folded.pyramid = FoldedPyramid(folded.pyramid, fused)  # pyright: ignore[reportAttributeAccessIssue]
    folded.head = nn.Sequential(activation)
    return folded


class FoldedPyramid(nn.Module):
    """Pyramid pooling, concatenation and 3×3 head convolution in one: N×C×h×w → N×O×h×w, h and w fixed at export."""

    def __init__(self, pyramid: PyramidPooling, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.pyramid = pyramid
        widths = [branch[0].out_channels for branch in pyramid.branches]  # pyright: ignore[reportIndexIssue]
        channels = convolution.in_channels - sum(widths)
        direct, *pooled = convolution.weight.detach().split([channels, *widths], dim=1)
        self.direct = nn.Parameter(direct.clone())
        self.bias = convolution.bias
        # O×c×3×3 → (3·O·3)×c: a 1×1 convolution whose outputs are ordered by row tap, map, column tap
        self.taps = nn.ParameterList(
            w.permute(2, 0, 3, 1).reshape(-1, w.shape[1], 1, 1).clone() for w in pooled
        )

    def forward(self, x: Tensor) -> Tensor:
        height, width, corners = *x.shape[-2:], self.pyramid.align_corners
        rows, columns = [], []
        for cells, taps in zip(self.pyramid.pooled(x), self.taps, strict=True):
            bins = cells.shape[-1]
            # N×(3·O·3)×k×k → N×O×(3k)×(3k): rows by row tap and cell row, columns by column tap and cell column
            tapped = F.conv2d(cells, taps).reshape(-1, 3, len(self.direct), 3, bins, bins)
            tapped = tapped.permute(0, 2, 1, 4, 3, 5).reshape(-1, len(self.direct), 3 * bins, 3 * bins)
            columns.append(tapped @ _shifted_upsampling(width, bins, corners).to(x).T)
            rows.append(_shifted_upsampling(height, bins, corners).to(x))
        return F.conv2d(x, self.direct, self.bias, padding=1) + torch.cat(rows, dim=1) @ torch.cat(
            columns, dim=2
        )


def _shifted_upsampling(size: int, bins: int, align_corners: bool) -> Tensor:
    """[S₋₁U, S₀U, S₁U], size×(3·bins): upsampling from `bins` cells, shifted by each of the kernel's three taps."""
    upsampling = upsampling_matrix(size, bins, align_corners)
    padded = F.pad(upsampling, (0, 0, 1, 1))  # the convolution's zero padding
    return torch.cat([padded[tap : tap + size] for tap in range(3)], dim=1)
