"""The form of a network that is exported for devices."""

from torch import nn

from student.branches import fold_branches
from student.edge import EdgeNet
from student.subpixel import subpixel_form
from teacher.fold import fold_pyramid
from teacher.pspnet import PSPNet, PyramidPooling


def folded(network: nn.Module) -> nn.Module:
    """Return an equivalent copy of a network that is faster at inference.

    A PSPNet's pyramid is folded into its head (`teacher.fold`), an EdgeNet's branches into one convolution each; in
    other networks, plain convolutions replace transposed ones (`student.subpixel`). A network with none of these is
    returned itself, unchanged.
    """
    if isinstance(network, EdgeNet):
        return fold_branches(network)
    if isinstance(network, PSPNet) and isinstance(network.pyramid, PyramidPooling):
        return fold_pyramid(network)
    return subpixel_form(network)
