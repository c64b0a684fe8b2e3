"""Small versions of the students other than PSPNet."""

import torch
from torch import Tensor, nn

from student.zoo import STUDENTS, build_network

# narrow to keep the tests fast; what is tested does not depend on the width
SMALL: dict[str, dict[str, object]] = {
    "ggcnn": {},
    "ggcnn2": {},
    "grconvnet": {"width": 4},
    "edge-nano": {"width": 4},
    "edge-small": {"width": 6, "detail": True},
    "edge-medium": {"width": 8},
    "unet": {"width": 4, "depth": 3},
    "unet-wide": {"width": 4, "depth": 2},
    "unet-weighted": {"width": 4, "depth": 2},
    "unet-fusion": {"width": 4, "depth": 2},
    "deeplabv3plus/mobilenetv2_100": {"head_channels": 16},
}
assert set(SMALL) == {name for name in STUDENTS if not name.startswith("pspnet/")}


def small(arch: str, in_channels: int = 2, num_outputs: int = 4, **options: object) -> nn.Module:
    """A small network with the same weights at every call."""
    torch.manual_seed(0)
    return build_network(arch, in_channels, num_outputs, **SMALL[arch] | options)


def settled(network: nn.Module, images: Tensor) -> nn.Module:
    """The network in evaluation mode, with statistics of `images` in the batch norms and nonzero biases."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.3)
            module.momentum = None  # the mean of all batches
    with torch.no_grad():
        network.train()(images)
    return network.eval()


def unsettled(network: nn.Module) -> nn.Module:
    """The network in float64, with arbitrary statistics and affine weights in all batch norms."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            ranges = ((module.weight, 0.5, 1.5), (module.running_var, 0.5, 2))
            for tensor, low, high in (*ranges, (module.bias, -1, 1), (module.running_mean, -1, 1)):
                assert tensor is not None
                tensor.data.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))
    return network.double().eval()
