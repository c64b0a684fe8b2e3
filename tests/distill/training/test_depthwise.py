"""Gradients of depthwise convolutions that are convolutions themselves: the same numbers, in the training alone."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from distill.quantization.qat import to_qat
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
    return kind(channels, channels, kernel, groups=channels, **options)


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
        assert torch.autograd.gradcheck(lambda image, *_: layer(image), (image, layer.weight, layer.bias))
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
    """Whether the gradient of what a layer returns is the one of this module."""
    return type(layer(image).grad_fn).__name__ == "_DepthwiseConvBackward"


def test_only_what_records_a_gradient_within_the_context_differs():
    layer, image = depthwise(3, 1, 1, 1), random_image((6, 6))
    with fast_depthwise(layer):
        assert own_gradient(layer, image)
        with torch.no_grad():
            assert layer(image).grad_fn is None
    with pytest.raises(RuntimeError, match="stop"), fast_depthwise(layer):
        raise RuntimeError("stop")
    assert not own_gradient(layer, image)
    with fast_depthwise(layer, enabled=False):
        assert not own_gradient(layer, image)
    with fast_depthwise(nn.Conv2d(4, 4, 3)):  # nothing depthwise in the network that is trained
        assert not own_gradient(layer, image)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 8, 3, groups=4),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, groups=4, padding="same"),
    ],
)
def test_other_convolutions_are_left_alone(layer):
    image = random_image((6, 6))
    with fast_depthwise(nn.Sequential(layer, depthwise(3, 1, 1, 1))):
        assert not own_gradient(layer, image)
        assert not own_gradient(layer, image[0])


def test_simulated_int8_learns_the_same():
    """Its weights are rounded by calls that see each convolution; none may be missed."""
    torch.manual_seed(0)
    network = PSPNet("mobilenetv3_small_050", 3, 4, output_stride=8, head_channels=16, dropout=0.0)
    images = random_image((64, 80), channels=3)
    qat = to_qat(network.eval(), images, [images]).train()
    plain, fast = gradients(qat, images, False), gradients(qat, images, True)
    assert torch.equal(fast[0], plain[0])
    assert sum(grad is not None for grad in fast) > 100
    for own, torchs in zip(fast[1:], plain[1:], strict=True):
        if torchs is not None:
            torch.testing.assert_close(own, torchs, rtol=1e-3, atol=1e-4 * float(torchs.abs().max()) + 1e-7)


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
