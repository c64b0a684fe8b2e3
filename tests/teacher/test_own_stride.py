"""Backbones that keep their own stride: vision transformers, and hybrids of convolutions and attention."""

from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from student.zoo import finer_outputs
from teacher.own_stride import build_own_stride, keeps_its_stride
from teacher.pspnet import PSPNet
from teacher.weights import load_weights

STRIDES = {
    "test_vit": (16, 16),
    "vit_tiny_patch16_224": (16, 16),
    "pvt_v2_b0": (16, 32),
    "poolformer_s12": (16, 32),
    "swin_tiny_patch4_window7_224": (16, 32),
}
"""Of the last two maps."""


@pytest.mark.parametrize("name", STRIDES)
@pytest.mark.parametrize("size", [(64, 96), (50, 75)])
def test_maps_cover_images_of_any_size_at_the_networks_strides(name, size):
    backbone = build_own_stride(name, 2, (-2, -1)).eval()
    with torch.no_grad():
        maps = backbone(torch.randn(1, 2, *size))
    assert tuple(backbone.feature_info.reduction()) == STRIDES[name]
    multiple = max(STRIDES[name])
    resized = [max(1, round(side / multiple)) * multiple for side in size]
    for one, stride, channels in zip(maps, STRIDES[name], backbone.feature_info.channels(), strict=True):
        assert one.shape == (1, channels, *(side // stride for side in resized))


@pytest.mark.parametrize(
    ("name", "keeps"),
    [
        ("resnet18", False),
        ("mobilevit_xs", False),
        ("test_vit", True),
        ("nothing", False),
        ("hf-hub:nothing", False),
        ("vgg11", True),
    ],
)
def test_networks_that_can_be_dilated_are_not_among_them(name, keeps):
    assert keeps_its_stride(name) == keeps


def test_a_plain_transformer_gives_blocks_at_quarters_of_its_depth():
    network: Any = timm.create_model("vit_tiny_patch16_224", dynamic_img_size=True).eval()
    backbone = build_own_stride("vit_tiny_patch16_224", 3, (-4, -3, -2, -1)).eval()
    backbone.network.model.load_state_dict(network.state_dict(), strict=False)
    image = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        expected = network.forward_intermediates(image, indices=[2, 5, 8, 11], intermediates_only=True)
        for ours, theirs in zip(backbone(image), expected, strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["test_vit", "swin_tiny_patch4_window7_224", "test_convnext", "pvt_v2_b0"])
def test_classifier_files_fit_however_timm_wraps_the_network(tmp_path, name):
    torch.manual_seed(0)
    classifier = timm.create_model(name)
    save_file(classifier.state_dict(), tmp_path / "timm.safetensors")
    network = PSPNet(name, 2, 5, head_channels=16)
    load_weights(network, tmp_path / "timm.safetensors", 2)
    own = {tuple(v.shape): v for v in network.backbone.state_dict().values() if v.ndim == 2}
    theirs = {
        tuple(v.shape): v for k, v in classifier.state_dict().items() if v.ndim == 2 and "head" not in k
    }
    assert own.keys() <= theirs.keys()
    assert all(torch.equal(value, theirs[shape]) for shape, value in own.items())


def test_only_pyramids_have_finer_outputs():
    assert finer_outputs("pspnet/test_vit") == ()
    assert finer_outputs("pspnet/swin_tiny_patch4_window7_224") == ({"detail": True},)
    network = PSPNet("pvt_v2_b0", 3, 5, head_channels=16, detail=True).eval()
    assert network(torch.randn(1, 3, 64, 64)).logits.shape == (1, 5, 16, 16)


def test_every_parameter_of_a_transformer_learns():
    network = PSPNet("test_vit", 3, 5, head_channels=16).train()
    output = network(torch.randn(2, 3, 64, 64))
    (output.logits.square().mean() + output.aux.square().mean()).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None]
    assert without == []
