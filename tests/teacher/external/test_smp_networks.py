"""Networks of segmentation_models_pytorch."""

import pytest
import segmentation_models_pytorch as smp
import torch
from torch.nn import functional as F

from deploy.errors import UserError
from teacher import hub
from teacher.external import origin, smp_networks
from teacher.external.smp_networks import SmpNetwork

STRIDES = {"Unet": 1, "PSPNet": 8, "FPN": 4, "DeepLabV3Plus": 4}
ENCODER = "tu-mobilenetv3_small_050"


@pytest.mark.parametrize("architecture", STRIDES)
def test_logits_are_those_of_smp_before_it_enlarges_them(architecture):
    torch.manual_seed(0)
    network = SmpNetwork(f"{architecture}/{ENCODER}", 2, 5).eval()
    original = smp.create_model(architecture, ENCODER, encoder_weights=None, in_channels=2, classes=5).eval()
    names = {"encoder": "backbone", "decoder": "decoder", "segmentation_head.0": "classifier"}
    state = {
        next(
            ours + name.removeprefix(theirs) for theirs, ours in names.items() if name.startswith(theirs)
        ): value
        for name, value in original.state_dict().items()
    }
    network.load_state_dict(state)
    image = torch.randn(1, 2, 64, 96)
    with torch.no_grad():
        output, expected = network(image), original(image)
    stride = STRIDES[architecture]
    assert output.logits.shape == (1, 5, 64 // stride, 96 // stride)
    enlarged = F.interpolate(output.logits, (64, 96), mode="bilinear", align_corners=True)  # as smp does
    torch.testing.assert_close(enlarged, expected, atol=1e-5, rtol=1e-4)
    assert {"layer3", "layer4", "head"} == set(output.features)


def test_images_of_any_size_and_every_parameter_learns():
    network = SmpNetwork(f"FPN/{ENCODER}", 3, 4).train()
    output = network(torch.randn(2, 3, 50, 75))
    assert output.logits.shape == (2, 4, 16, 16)  # of the image at 64×64
    output.logits.square().mean().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Unett/resnet18", r"write smp/<Architecture>/<encoder>; architectures: Unet, "),
        ("Unet", r"write smp/<Architecture>/<encoder>"),
        ("Unet/resnet1O1", r"cannot be built .*resnet1O1.*get_encoder_names"),
    ],
)
def test_unknown_names_are_one_line(name, words):
    with pytest.raises(UserError, match=f"smp/{name}: {words}") as caught:
        SmpNetwork(name, 3, 5)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18"])
def test_weights_that_cannot_be_fetched_are_one_line_at_once(encoder, monkeypatch):
    monkeypatch.setattr(smp_networks, "cached_file", lambda repository, names: None)
    monkeypatch.setattr(smp_networks, "where_found", lambda name: None)
    monkeypatch.setattr(hub.constants, "is_offline_mode", lambda: True)
    hub.why_unreachable.cache_clear()
    with pytest.raises(
        UserError, match=f"of smp's '{encoder}' cannot be had .* HF_HUB_OFFLINE is set; connect once"
    ):
        SmpNetwork(f"Unet/{encoder}", 3, 5, pretrained=True)


def test_an_absent_package_is_named_with_the_command(monkeypatch):
    monkeypatch.setattr(origin, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"needs segmentation_models_pytorch; pip install 'edgedistill\[smp\]'"
    ):
        SmpNetwork("Unet/resnet18", 3, 5)
