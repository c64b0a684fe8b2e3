"""Gradients of depthwise convolutions that are convolutions themselves: the same numbers, in the training alone."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from distill.training import loop
from distill.training.activation_checkpointing import checkpointed
from distill.training.depthwise import fast_depthwise
from distill.training.loop import prepared
from distill.training.parts import Part
from teacher.pspnet import PSPNet
from tests.distill.tiny import tiny_net
from tests.distill.training.small_training import SGD

# kernel, stride, padding, dilation, height and width of the image
SHAPES = [
    (3, 1, 1, 1, (6, 7)),
    (5, 1, 4, 2, (8, 5)),
    (3, 1, 0, 2, (7, 9)),
    (3, 1, 5, 2, (4, 6)),  # padding beyond the kernel
    ((3, 5), 1, (1, 4), (1, 2), (5, 7)),
    (3, 2, 1, 1, (7, 8)),
    (5, 2, 4, 2, (9, 10)),
    (3, (2, 1), 2, (2, 3), (8, 9)),
]


def depthwise(kernel, stride, padding, dilation, kind=nn.Conv2d, channels=4):
    torch.manual_seed(0)
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    return kind(channels, channels, kernel, groups=channels, bias=False, **options)


def random_image(size, channels=4, count=2):
    return torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(1))


def gradients(network, image, fast, autocast=False):
    """Output, and the gradients of a sum of squares for the image and all weights."""
    network.zero_grad()
    image = image.clone().requires_grad_()
    mixed = torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext()
    with fast_depthwise(network, fast), mixed:
        output = network(image)
        output = getattr(output, "logits", output)
        output.square().sum().backward()
    return [output.detach(), image.grad, *(weight.grad for weight in network.parameters())]


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation", "size"), SHAPES)
def test_gradients_in_float64(kernel, stride, padding, dilation, size):
    layer = depthwise(kernel, stride, padding, dilation, channels=2).double()
    image = random_image(size, channels=2).double().requires_grad_()
    with fast_depthwise(layer):
        assert torch.autograd.gradcheck(lambda image, _: layer(image), (image, layer.weight))
    image = image.detach()
    torch.testing.assert_close(gradients(layer, image, True), gradients(layer, image, False))


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 2, 1), (5, 1, 2), (5, 2, 1), (3, 2, 2)])
def test_padding_as_in_tensorflow(kernel, stride, dilation):
    layer = depthwise(kernel, stride, 0, dilation, Conv2dSame)
    image = random_image((9, 12))
    fast, plain = gradients(layer, image, True), gradients(layer, image, False)
    assert torch.equal(fast[0], plain[0])
    torch.testing.assert_close(fast[1:], plain[1:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation", "size"), SHAPES)
def test_mixed_precision_is_no_further_from_float64_than_torchs_own(kernel, stride, padding, dilation, size):
    layer, image = depthwise(kernel, stride, padding, dilation), random_image(size)
    exact = gradients(depthwise(kernel, stride, padding, dilation).double(), image.double(), False)
    fast, plain = gradients(layer, image, True, autocast=True), gradients(layer, image, False, autocast=True)
    assert torch.equal(fast[0], plain[0])
    assert fast[0].dtype == torch.bfloat16
    for own, torchs, expected in zip(fast[1:], plain[1:], exact[1:], strict=True):
        assert own.dtype == torch.float32
        limit = max(1.5 * (torchs - expected).norm(), 0.005 * expected.norm())
        assert (own - expected).norm() <= limit


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv3_small_050"])
def test_a_network_learns_the_same(name):
    torch.manual_seed(0)
    network = PSPNet(name, 3, 4, output_stride=8, head_channels=16, dropout=0.0).train()
    # in float64: before a norm some gradients are rounding errors
    network = network.double().to(memory_format=torch.channels_last)
    image = random_image((64, 80), channels=3).double()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    plain = gradients(network, image, False)
    network.load_state_dict(state)  # norms have counted
    fast = gradients(network, image, True)
    network.load_state_dict(state)
    with checkpointed(network):
        again = gradients(network, image, True)
    assert torch.equal(fast[0], plain[0])
    for own, recomputed, torchs in zip(fast[1:], again[1:], plain[1:], strict=True):
        if torchs is not None:
            torch.testing.assert_close(own, torchs)
            torch.testing.assert_close(recomputed, own)


def own_gradient(layer, image):
    """Whether the layer's gradient is the one of this module."""
    return type(layer(image).grad_fn).__name__ == "_DepthwiseConvBackward"


def test_only_training_within_the_context_differs():
    layer, image = depthwise(3, 1, 1, 1).train(), random_image((6, 6))
    with fast_depthwise(layer):
        assert own_gradient(layer, image)
        assert not own_gradient(layer.eval(), image)
        with torch.no_grad():
            assert layer.train()(image).grad_fn is None
    with pytest.raises(RuntimeError, match="stop"), fast_depthwise(layer):
        raise RuntimeError("stop")
    with fast_depthwise(layer, enabled=False):
        assert not own_gradient(layer, image)
    assert "forward" not in vars(layer)
    assert list(layer.state_dict()) == ["weight"]


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 8, 3, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, groups=2, bias=False),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 4, 3, groups=4, bias=False, padding="same"),
        nn.Conv2d(4, 4, 3, groups=4, bias=False, padding=1, padding_mode="reflect"),
    ],
)
def test_other_convolutions_are_left_alone(layer):
    with fast_depthwise(layer):
        assert not own_gradient(layer, random_image((6, 6)))
        assert "forward" not in vars(layer)


@pytest.mark.parametrize("compiles", [False, True])
def test_training_on_a_cpu_uses_it_unless_it_compiles(stage, accelerator, monkeypatch, compiles):
    asked = []

    def recorded(network, enabled):
        asked.append(enabled)
        return fast_depthwise(network, enabled)

    monkeypatch.setattr(loop, "fast_depthwise", recorded)
    monkeypatch.setattr(nn.Module, "compile", lambda module: None)
    training = prepared(tiny_net(), stage, replace(SGD, compile=compiles), accelerator, None)
    training.backward(0, Part(next(training.batches(0))))
    assert asked == [not compiles]
