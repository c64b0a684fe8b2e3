"""The network's shape, its auxiliary head, its folded form and its exported size."""

import pytest
import torch
from torch import nn

from deploy.errors import UserError
from teacher.fold import fold_pyramid
from teacher.pspnet import PSPNet, PyramidPooling

TINY = "mobilenetv3_small_050"


def tiny(**options):
    torch.manual_seed(0)
    return PSPNet(TINY, options.pop("in_channels", 3), 5, head_channels=32, **options)


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_logits_at_the_output_stride_for_any_channels(stride, channels):
    network = tiny(in_channels=channels, output_stride=stride).eval()
    output = network(torch.randn(1, channels, 64, 96))
    assert output.logits.shape == (1, 5, 64 // stride, 96 // stride)
    assert output.aux is None


def test_detail_gives_outputs_at_half_the_size_from_all_depths():
    network = tiny(output_stride=16, detail=True)
    output = network.train()(torch.randn(2, 3, 64, 96))
    assert output.logits.shape == (2, 5, 32, 48)
    assert output.aux is not None
    assert output.aux.shape == (2, 5, 4, 6)
    output.logits.sum().backward()
    without = {name for name, p in network.named_parameters() if p.grad is None}
    assert {name.split(".")[0] for name in without} == {"aux_head"}


def test_auxiliary_head_sees_layer3_in_training_only():
    network = tiny(output_stride=8)
    output = network.train()(torch.randn(2, 3, 64, 64))
    assert output.aux is not None
    assert output.aux.shape == output.logits.shape == (2, 5, 8, 8)
    output.aux.sum().backward()
    reached = {
        name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert reached == {"backbone", "aux_head"}
    assert tiny(aux=False).train()(torch.randn(2, 3, 64, 64)).aux is None


def test_the_papers_network():
    network = PSPNet("resnet101", 3, 19)
    assert isinstance(network.pyramid, PyramidPooling)
    assert network.pyramid.bins == (1, 2, 3, 6)
    assert network.pyramid.out_channels == 4096
    assert network.head[0].weight.shape == (512, 4096, 3, 3)  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(network.aux_head, nn.Sequential)
    assert network.aux_head[0].weight.shape == (256, 1024, 3, 3)  # layer3 has 1024 channels
    with torch.device("meta"):
        image = torch.empty(1, 3, 713, 713)
    assert network.to("meta").eval()(image).logits.shape == (1, 19, 90, 90)


@pytest.mark.parametrize("options", [{}, {"detail": True}, {"align_corners": True}])
@pytest.mark.parametrize("size", [(64, 96), (72, 104), (97, 61)])
def test_folding_changes_nothing(size, options):
    network = tiny(output_stride=8, **options)
    for module in network.modules():  # fresh norms have zero shift, which would hide a wrong border
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    network.eval()
    x = torch.randn(2, 3, *size)
    with torch.inference_mode():
        expected, folded = network(x).logits, fold_pyramid(network)(x).logits
    torch.testing.assert_close(folded, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("contract", "first"), [(True, {"layer3": 1, "layer4": 2}), (False, {"layer3": 2, "layer4": 4})]
)
def test_the_dilation_of_first_blocks(contract, first):
    network = PSPNet("resnet26", 3, 5, contract_dilation=contract)
    modules = dict(network.backbone.named_modules())
    for stage, rest in (("layer3", 2), ("layer4", 4)):
        for block, dilation in ((0, first[stage]), (1, rest)):
            convolution = modules[f"{stage}.{block}.conv2"]
            assert isinstance(convolution, nn.Conv2d)
            assert convolution.dilation == convolution.padding == (dilation, dilation)
            assert convolution.stride == (1, 1)


def test_only_resnets_have_such_blocks():
    with pytest.raises(UserError, match=r"'mobilenetv3_small_050' is no ResNet.*contract_dilation"):
        tiny(contract_dilation=False)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("resnet1O1", {}, "no model 'resnet1O1'"),
        ("swin_tiny_patch4_window7_224", {"output_stride": 16}, "keeps its output stride of 32; leave out"),
        (
            "hiera_tiny_224",
            {},
            "takes images of one size only .* choose one that takes any, such as vit_small",
        ),
        ("test_vit", {"detail": True}, "has maps of one stride, and so no finer ones; leave out --.*detail"),
    ],
)
def test_a_backbone_that_will_not_do_is_named(name, options, words):
    with pytest.raises(UserError, match=words):
        PSPNet(name, 3, 5, **options)
