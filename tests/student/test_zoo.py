"""Networks by name, their options, and their costs."""

import inspect
from typing import ClassVar

import pytest
import torch

from deploy.errors import UserError
from distill.config import ModelConfig
from student.edge import DEPTHS, EdgeNet
from student.unet import UNet
from student.zoo import (
    COMMON,
    FAMILIES,
    STUDENTS,
    build_network,
    channels_of,
    count_macs,
    count_parameters,
    student_lines,
)


@pytest.mark.parametrize(
    "arch", [*(name for name in STUDENTS if name.startswith("pspnet/")), "pspnet/efficientnet_lite0"]
)
def test_every_pspnet_trains_and_infers(arch):
    network = build_network(arch, 2, 3, head_channels=32, output_stride=16)
    output = network.train()(torch.randn(2, 2, 64, 64))
    (output.logits.mean() + output.aux.mean()).backward()
    assert all(p.grad is not None for p in network.parameters())
    assert network.eval()(torch.randn(1, 2, 64, 64)).logits.shape == (1, 3, 4, 4)


def test_counts_match_a_count_by_hand():
    network = build_network("pspnet/resnet18", 3, 11, head_channels=128, aux=True)
    backbone = sum(p.numel() for p in network.backbone.parameters())
    # four 1×1 reductions 512→128 with norms, 3×3 head 1024→128 with norm, 1×1 classifier with bias
    head = 4 * (512 * 128 + 256) + (9 * 1024 * 128 + 256) + (128 * 11 + 11)
    assert count_parameters(network) == backbone + head

    class Convolution(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 16, 3, padding=1)

        def forward(self, x):
            return self.layer(x)

    assert count_macs(Convolution(), 3, (10, 20)) == 10 * 20 * 16 * 3 * 9


def test_counting_leaves_the_network_alone():
    network = build_network("pspnet/resnet18", 3, 11, head_channels=32)
    network.train()
    count_macs(network, 3, (64, 64))
    assert network.training
    assert next(network.parameters()).device.type == "cpu"


def test_listing_has_a_line_for_each_student():
    lines = list(student_lines(["pspnet/efficientnet_lite0"], 3, 11, (304, 304)))
    assert [line.split()[0] for line in lines] == ["student", *STUDENTS, "pspnet/efficientnet_lite0"]


def test_listing_says_which_cannot_be_built():
    lines = {line.split()[0]: line for line in student_lines([], 1, 4, (48, 48))}
    assert "two modalities, and the image has 1 channel; use unet" in lines["unet-fusion"]
    with pytest.raises(UserError, match="unet-fusion: joins two modalities"):
        build_network("unet-fusion", 1, 4)


class TestOptions:
    """A configuration has options for all networks; each network takes those that it knows."""

    COMMON: ClassVar = {
        "output_stride": 8,
        "head_channels": 512,
        "dropout": 0.1,
        "detail": False,
        "pretrained": False,
        "align_corners": False,
        "contract_dilation": True,
        "head": "pyramid",
    }

    @pytest.mark.parametrize("arch", [name for name in STUDENTS if "/" not in name])
    @pytest.mark.parametrize("aux", [True, False])
    def test_those_of_others_are_passed_over_at_their_defaults(self, arch, aux):
        with torch.device("meta"):
            build_network(arch, 2, 3, aux=aux, **self.COMMON)

    def test_defaults_of_configurations_are_those_of_networks(self):
        config = ModelConfig("unet")
        assert config.detail is None  # open: a run decides
        assert {name: getattr(config, name) for name in self.COMMON} == self.COMMON | {"detail": None}
        assert config.depths is None  # open as well
        assert COMMON == self.COMMON | {"depths": DEPTHS}

    @pytest.mark.parametrize("network", [*FAMILIES.values(), *STUDENTS.values()], ids=[*FAMILIES, *STUDENTS])
    def test_listed_options_are_the_keywords_of_the_constructor(self, network):
        constructor = network.constructor
        if network is STUDENTS["unet-fusion"]:
            constructor = UNet  # the fusion network passes its options on
        given = set()
        if network is FAMILIES["edge"]:
            constructor, given = EdgeNet, {"width"}  # the name gives it, and the other options are passed on
        parameters = inspect.signature(constructor).parameters.values()
        assert network.options == {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - given

    def test_common_defaults_are_those_of_pspnet(self):
        parameters = inspect.signature(FAMILIES["pspnet"].constructor).parameters
        defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
        assert defaults | {"head": "pyramid"} == {"aux": True, **self.COMMON}

    def test_otherwise_they_are_named_with_the_remedy(self):
        message = (
            "no option output_stride, head_channels; give the default, output_stride 8, head_channels 512"
        )
        with pytest.raises(UserError, match=message):
            build_network("unet", 3, 11, **self.COMMON | {"output_stride": 16, "head_channels": 128})
        with pytest.raises(
            UserError, match="ggcnn has no option pretrained; give the default, pretrained False"
        ):
            build_network("ggcnn", 3, 11, pretrained=True)
        with pytest.raises(UserError, match="ggcnn has no option width; it has none"):
            build_network("ggcnn", 3, 11, width=3)
        with pytest.raises(
            UserError, match=r"unet-fusion has no option heads; it has aux, depth, .*modalities"
        ):
            build_network("unet-fusion", 3, 11, heads=3)

    @pytest.mark.parametrize("arch", STUDENTS)
    def test_a_network_knows_the_channels_of_its_image(self, arch):
        with torch.device("meta"):
            assert channels_of(build_network(arch, 5, 3)) == 5

    def test_own_options_and_any_backbone(self):
        assert build_network("unet-fusion", 4, 2, width=4, modalities=(2, 2)).encoder.modalities == (2, 2)
        assert build_network("unet-wide", 3, 2, width=8).classifier.in_channels == 8
        network = build_network(
            "deeplabv3plus/mobilenetv3_small_050", 3, 2, output_stride=16, head_channels=8
        )
        assert network.eval()(torch.randn(1, 3, 32, 32)).logits.shape == (1, 2, 8, 8)


def test_unknown_name_lists_the_known():
    with pytest.raises(UserError, match=r"unknown network 'unet9'.*pspnet/resnet50"):
        build_network("unet9", 3, 11)
