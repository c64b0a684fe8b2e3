"""Transposed convolutions replaced by plain ones compute the same."""

from itertools import product

import pytest
import torch
from torch import nn

from student.device import folded
from student.subpixel import Subpixel, subpixel_form
from tests.student.networks import settled, small

SHAPES = [
    (kernel, stride, padding, more)
    for kernel, stride, padding, more in product((1, 2, 3, 4, 5, 9), (1, 2, 3), (0, 1, 3), (0, 1, 2))
    if padding < kernel and more < stride
]


def kinds(network: nn.Module) -> set[type]:
    return {type(module) for module in network.modules()}


@pytest.mark.parametrize("bias", [True, False])
def test_same_for_every_kernel_stride_and_padding(bias):
    torch.manual_seed(0)
    for kernel, stride, padding, more in SHAPES:
        sides = kernel, max(kernel - 1, padding + 1)
        network = nn.Sequential(nn.ConvTranspose2d(3, 2, sides, stride, padding, more, bias=bias)).double()
        x = torch.randn(2, 3, 7, 4, dtype=torch.double)
        torch.testing.assert_close(subpixel_form(network)(x), network(x))


def test_norm_and_activation_behind_go_with_it():
    network = nn.Sequential(
        nn.ConvTranspose2d(4, 3, 4, 2, 1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.ConvTranspose2d(3, 2, 3),
        nn.ReLU6(),
    )
    x = torch.randn(2, 4, 6, 5)
    settled(network, x)
    changed = subpixel_form(network)
    torch.testing.assert_close(changed(x), network(x), atol=1e-5, rtol=1e-5)
    assert nn.BatchNorm2d not in kinds(changed)
    assert nn.ConvTranspose2d in kinds(network)
    assert isinstance(changed[0], Subpixel)
    assert isinstance(changed[0].activation, nn.ReLU)


def test_what_it_cannot_replace_stays():
    for layer in (
        nn.ConvTranspose2d(4, 4, 3, groups=2),
        nn.ConvTranspose2d(4, 4, 3, dilation=2),
        nn.ConvTranspose2d(4, 4, 3, stride=(1, 2)),
        nn.Conv2d(4, 4, 3),
    ):
        network = nn.Sequential(layer)
        assert subpixel_form(network) is network


@pytest.mark.parametrize(
    ("arch", "options"), [("ggcnn", {}), ("grconvnet", {}), ("unet", {"up": "transposed"})]
)
def test_students_are_folded_without_a_change(arch, options):
    images = torch.randn(2, 2, 30, 41)
    network = settled(small(arch, **options), images)
    device = folded(network)
    assert nn.ConvTranspose2d not in kinds(device)
    with torch.no_grad():
        torch.testing.assert_close(device(images).logits, network(images).logits, atol=1e-4, rtol=1e-4)
    assert folded(device) is device
