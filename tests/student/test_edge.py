"""EdgeNet: branches fold exactly, sizes are those documented, and any width has a name."""

import pytest
import torch
from torch import nn

from deploy.errors import UserError
from student.branches import Branches, fold_branches
from student.device import folded
from student.edge import DEPTHS, FORMER_DEPTHS, SIZES, Context, EdgeNet, depths_of
from student.zoo import build_network, count_macs, count_parameters
from tests.student.networks import unsettled

LAYOUTS = [
    {},
    {"detail": True},
    {"output_stride": 2, "depths": (1, 2, 3, 1)},
    {"stride": 16, "channels": 5, "convolutions": 1},
]


@pytest.mark.parametrize("options", LAYOUTS)
@pytest.mark.parametrize("size", [(64, 96), (67, 45)])
def test_a_folded_network_computes_the_same(options, size):
    network = unsettled(EdgeNet(4, 6, width=4, **options))
    image = torch.randn(2, 4, *size, dtype=torch.float64)
    assert isinstance(network, EdgeNet)
    small = fold_branches(network)
    torch.testing.assert_close(small(image).logits, network(image).logits, rtol=0, atol=1e-11)
    assert not any(isinstance(module, Branches) for module in small.modules())
    assert any(isinstance(module, Branches) for module in network.modules())  # the original is as it was
    assert count_parameters(folded(network)) == count_parameters(small) < count_parameters(network)


def test_context_is_a_convolution_of_the_concatenated_pyramid():
    context = Context(5, 3).double()
    x = torch.randn(2, 5, 6, 9, dtype=torch.float64)
    pools = [
        nn.functional.interpolate(nn.functional.adaptive_avg_pool2d(x, bins), (6, 9), mode="bilinear")
        for bins in (1, 3)
    ]
    weights = torch.cat([context.direct.weight, *(one.weight for one in context.pooled)], dim=1)
    biases = torch.stack([context.direct.bias, *(one.bias for one in context.pooled)]).sum(0)
    expected = nn.functional.conv2d(torch.cat([x, *pools], dim=1), weights, biases).relu()
    torch.testing.assert_close(context(x), expected)


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [("edge-nano", 0.3415e6, 0.144e9), ("edge-small", 0.767e6, 0.315e9), ("edge-medium", 1.362e6, 0.553e9)],
)
def test_parameters_and_operations_are_those_documented(name, parameters, macs):
    network = fold_branches(build_network(name, 3, 11))  # pyright: ignore[reportArgumentType]
    assert count_parameters(network) == pytest.approx(parameters, rel=1e-3)
    assert count_macs(network, 3, (320, 320)) == pytest.approx(macs, rel=2e-3)


def test_any_width_has_a_name():
    for name, width in SIZES:
        named, by_width = build_network(name, 3, 2), build_network(f"edge/{width}", 3, 2)
        assert count_parameters(named) == count_parameters(by_width)
    with pytest.raises(UserError, match="edge/wide: give the width as a number"):
        build_network("edge/wide", 3, 2)
    with pytest.raises(UserError, match="width 0 must be 1 or more"):
        build_network("edge/0", 3, 2)


def test_no_1x1_convolution_is_strided_in_training():
    """Its gradient is wrong on some CPUs (see `Pointwise`); for inference there is one again."""
    network = EdgeNet(3, 2, width=4)
    strided = [
        m
        for m in network.modules()
        if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and m.stride != (1, 1)
    ]
    assert strided == []
    stages = fold_branches(network).get_submodule("backbone.stages")
    assert {m.stride for m in stages.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)} == {
        (2, 2)
    }


@pytest.mark.parametrize(
    ("options", "finest", "deepest", "channels"),
    [
        ({}, 8, 32, 12),
        ({"detail": True}, 4, 32, 12),
        ({"detail": True, "output_stride": 2}, 2, 32, 6),
        ({"output_stride": 8, "stride": 16, "channels": 7}, 8, 16, 7),
    ],
)
def test_options_set_strides_and_channels_of_the_maps(options, finest, deepest, channels):
    height, width = 300, 290  # no multiples of 32
    output = EdgeNet(3, 5, width=6, **options)(torch.zeros(2, 3, height, width))
    assert output.logits.shape == (2, 5, -(-height // finest), -(-width // finest))
    assert output.features["head"].shape == (2, channels, *output.logits.shape[2:])
    assert output.features["layer4"].shape == (2, 48, -(-height // deepest), -(-width // deepest))
    assert output.aux is not None
    assert output.aux.shape == (2, 5, 19, 19)


@pytest.mark.parametrize("depths", [DEPTHS, FORMER_DEPTHS, (3, 1, 2, 11)])
def test_depths_are_read_from_the_names_of_the_tensors(depths):
    assert depths_of(EdgeNet(3, 2, width=1, depths=depths).state_dict()) == depths
    assert depths_of(build_network("unet", 3, 2).state_dict()) is None
    assert depths_of([]) is None


def test_depths_are_residual_blocks_of_the_stages():
    network = EdgeNet(3, 2, width=4, depths=(1, 2, 4, 3), convolutions=3)
    assert [len(stage) for stage in network.backbone.stages] == [1, 2, 4, 3]  # pyright: ignore[reportArgumentType]
    assert sum(isinstance(module, Branches) for module in network.decoder.modules()) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_stride": 3}, "output_stride 3 must be one of 2, 4, 8"),
        ({"stride": 8}, "stride 8 must be one of 16, 32"),
        ({"depths": (2, 2, 2)}, r"depths \(2, 2, 2\): give 4 numbers of 1 or more"),
        ({"depths": (2, 2, 2, 0)}, "give 4 numbers of 1 or more"),
        ({"channels": 0}, "channels 0 must be 1 or more"),
        ({"convolutions": 0}, "convolutions 0 must be 1 or more"),
    ],
)
def test_mistakes_in_options_get_one_line(options, message):
    with pytest.raises(UserError, match=message):
        build_network("edge-nano", 3, 2, **options)
