"""What all students have in common, and what the papers publish about each."""

import pytest
import torch
from torch.nn import functional as F

from deploy.errors import UserError
from student.unet import UNet
from student.zoo import build_network, count_macs, count_parameters
from tests.student.networks import SMALL, small

STRIDES = {"deeplabv3plus/mobilenetv2_100": 4, "edge-nano": 8, "edge-small": 4, "edge-medium": 8}
"""Of logits that are smaller than the image; edge-small is tested with `detail`."""
PUBLISHED = [
    # "62,420", README of github.com/dougsm/ggcnn and arXiv:1804.05172 ("approximately 62k")
    ("ggcnn", 1, 4, {}, 62_420),
    # by the layers of ggcnn2.py there; "66k" in Morrison et al., IJRR 2019
    ("ggcnn2", 1, 4, {}, 66_676),
    # arXiv:1909.04810, "1,900,900", for four channels
    ("grconvnet", 4, 4, {}, 1_900_900),
    # github.com/milesial/Pytorch-UNet, three channels and two classes
    ("unet", 3, 2, {"width": 64, "up": "transposed"}, 31_037_698),
    ("unet", 3, 2, {"width": 64}, 17_263_042),
]


@pytest.mark.parametrize(("arch", "channels", "outputs", "options", "parameters"), PUBLISHED)
def test_parameters_are_those_published(arch, channels, outputs, options, parameters):
    assert count_parameters(build_network(arch, channels, outputs, **options)) == parameters


def test_multiply_accumulates_by_hand():
    transposed = 25 * 25 * 9 * 8 * 8 + 50 * 50 * 25 * 8 * 16 + 100 * 100 * 81 * 16 * 32
    plain = 100 * 100 * 81 * 32 + 50 * 50 * 25 * 32 * 16 + 25 * 25 * 9 * 16 * 8
    heads = 300 * 300 * 4 * 32 * 4
    assert count_macs(build_network("ggcnn", 1, 4), 1, (300, 300)) == transposed + plain + heads


@pytest.mark.parametrize("arch", SMALL)
@pytest.mark.parametrize(("channels", "outputs"), [(2, 4), (5, 1), (3, 11)])
@pytest.mark.parametrize("size", [(16, 16), (17, 30), (45, 32)])
def test_any_image_gives_logits_at_a_known_size(arch, channels, outputs, size):
    network = small(arch, channels, outputs).eval()
    image = torch.randn(1, channels, *size)
    with torch.no_grad():
        output, again = network(image), network(image)
    expected = tuple(-(-side // STRIDES.get(arch, 1)) for side in size)
    assert output.logits.shape == (1, outputs, *expected)
    assert output.aux is None
    assert {"layer3", "layer4", "head"} <= set(output.features)
    assert all(maps.ndim == 4 for maps in output.features.values())
    assert torch.equal(output.logits, again.logits)


@pytest.mark.parametrize("arch", SMALL)
def test_two_steps_reach_every_parameter_and_lower_the_loss(arch):
    network = small(arch, dropout=0.0) if "ggcnn" not in arch else small(arch)
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    image, wanted = torch.randn(2, 2, 32, 32), torch.rand(2, 4, 32, 32)
    losses = []
    for _ in range(3):
        output = network(image)
        maps = [one for one in (output.logits, output.aux) if one is not None]
        loss = sum(F.mse_loss(F.interpolate(one, (32, 32)), wanted) for one in maps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    missed = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missed
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("arch", SMALL)
def test_the_auxiliary_head_is_for_training_and_can_be_left_out(arch):
    image = torch.randn(2, 2, 32, 32)
    output = small(arch, aux=True).train()(image)
    has = "ggcnn" not in arch
    assert (output.aux is not None) == has
    if has:
        assert output.aux.shape[:2] == (2, 4)
        assert max(output.aux.shape[2:]) < 32
    assert small(arch, aux=False).train()(image).aux is None
    counts = [count_parameters(small(arch, aux=aux)) for aux in (True, False)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("arch", SMALL)
def test_evaluation_of_an_image_does_not_depend_on_its_batch(arch):
    network = small(arch).eval()
    images = torch.randn(3, 2, 24, 24)
    with torch.no_grad():
        alone, together = network(images[1:2]).logits, network(images).logits[1:2]
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("arch", "multiple"),
    [("ggcnn", 12), ("ggcnn2", 4), ("grconvnet", 4), ("unet", 8), ("unet-wide", 4), ("unet-fusion", 4)],
)
def test_other_sizes_are_padded_to_the_next_multiple(arch, multiple):
    network = small(arch).eval()
    image = torch.randn(1, 2, 41, 50)
    with torch.no_grad():
        padded = network(F.pad(image, (0, -50 % multiple, 0, -41 % multiple))).logits[..., :41, :50]
        torch.testing.assert_close(network(image).logits, padded, atol=1e-5, rtol=1e-4)


def test_channel_weights_start_near_1_and_see_the_whole_image():
    weights = small("unet-weighted", 3).eval().get_submodule("weights")
    image = torch.randn(2, 3, 20, 20)
    with torch.no_grad():
        weighted = weights(image)
        ratio = weighted / image
        brighter = weights(image + 3) / (image + 3)
    assert ratio.std(dim=(2, 3)).max() < 1e-4  # one number a channel
    assert ((ratio > 0.5) & (ratio < 1.5)).all()
    assert (ratio.mean((2, 3)) - brighter.mean((2, 3))).abs().max() > 1e-3


@pytest.mark.parametrize(("channels", "expected"), [(2, (1, 1)), (3, (2, 1)), (4, (3, 1)), (5, (3, 2))])
def test_fusion_keeps_the_modalities_apart_until_they_are_joined(channels, expected):
    encoder = small("unet-fusion", channels).eval().get_submodule("encoder")
    assert encoder.modalities == expected
    first = encoder.get_submodule("first")
    image = torch.randn(1, channels, 16, 16)
    changed = image.clone()
    changed[:, expected[0] :] += 1
    with torch.no_grad():
        for one, other in zip(first(image[:, : expected[0]]), first(changed[:, : expected[0]]), strict=True):
            assert torch.equal(one, other)
        assert all(
            not torch.equal(one, other) for one, other in zip(encoder(image), encoder(changed), strict=True)
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"up": "nearest"}, "up is 'nearest'; choose bilinear or transposed"),
        ({"depth": 0}, "depth 0 must be 1 or more"),
        ({"modalities": (3, 2)}, r"modalities 3 \+ 2: .* add up to the 4 channels of the image"),
        ({"modalities": (4, 0)}, r"modalities 4 \+ 0"),
    ],
)
def test_wrong_options_of_unet_are_named(options, message):
    with pytest.raises(UserError, match=message):
        UNet(4, 2, width=4, **options)
