"""Segmentation networks of torchvision."""

import pytest
import torch
import torchvision
from torch.nn import functional as F
from torchvision.models import WeightsEnum, segmentation

from deploy.errors import UserError
from teacher.external import torchvision_networks
from teacher.external.torchvision_networks import TorchvisionNetwork, torchvision_origin

SMALL = "lraspp_mobilenet_v3_large"
NAMES = torchvision.models.list_models(module=segmentation)
STRIDES = {SMALL: 8, "deeplabv3_mobilenet_v3_large": 16}


@pytest.mark.parametrize("name", [SMALL, "deeplabv3_mobilenet_v3_large", "fcn_resnet50"])
def test_enlarged_logits_are_those_of_torchvision(name):
    torch.manual_seed(0)
    original = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=5).eval()
    network = TorchvisionNetwork(name, 3, 5, aux=False).eval()
    network.load_state_dict(original.state_dict())
    image = torch.randn(1, 3, 48, 80)
    with torch.no_grad():
        output, expected = network(image), original(image)["out"]
    enlarged = F.interpolate(output.logits, (48, 80), mode="bilinear", align_corners=False)
    torch.testing.assert_close(enlarged, expected)
    stride = STRIDES.get(name, 8)
    assert output.logits.shape == (1, 5, 48 // stride, 80 // stride)
    assert {"layer3", "layer4"} == set(output.features)


@pytest.mark.parametrize(("name", "has_aux"), [(SMALL, False), ("deeplabv3_mobilenet_v3_large", True)])
def test_the_auxiliary_head_is_for_training(name, has_aux):
    network = TorchvisionNetwork(name, 2, 4).train()
    output = network(torch.randn(2, 2, 64, 64))
    assert (output.aux is not None) == has_aux
    maps = [one for one in (output.logits, output.aux) if one is not None]
    sum(one.square().mean() for one in maps).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []
    assert network.eval()(torch.randn(1, 2, 64, 64)).aux is None
    assert TorchvisionNetwork(name, 2, 4, aux=False).train()(torch.randn(2, 2, 64, 64)).aux is None


def published(monkeypatch, change=lambda state: state):
    """Let torchvision's weights be those of a new network of 21 classes, which is returned."""
    torch.manual_seed(0)
    original = torchvision.models.get_model(
        "deeplabv3_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=21, aux_loss=True
    )
    state = change(original.state_dict())
    monkeypatch.setattr(torchvision_networks, "why_unreachable", lambda url: "")
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, **options: dict(state))
    return original


def test_published_weights_are_loaded_and_other_classes_get_a_new_head(monkeypatch):
    original = published(monkeypatch)
    same = TorchvisionNetwork("deeplabv3_mobilenet_v3_large", 3, 21, pretrained=True).eval()
    assert same.new_tensors == ()
    image = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        expected = original.eval()(image)["out"]
        enlarged = F.interpolate(same(image).logits, (48, 48), mode="bilinear", align_corners=False)
    torch.testing.assert_close(enlarged, expected)
    other = TorchvisionNetwork("deeplabv3_mobilenet_v3_large", 2, 5, pretrained=True)
    assert set(other.new_tensors) == {
        *("classifier.4.weight", "classifier.4.bias", "aux_head.4.weight", "aux_head.4.bias"),
    }
    first = next(iter(original.backbone.state_dict().values()))
    assert not torch.equal(next(iter(other.backbone.state_dict().values()))[:, :2], first[:, :2] * 0)


def test_published_weights_that_do_not_fit_are_named(monkeypatch):
    published(monkeypatch, lambda state: {k: v for k, v in state.items() if k != "backbone.0.0.weight"})
    with pytest.raises(UserError, match=r"1 tensors do not fit the network, first backbone\.0\.0\.weight"):
        TorchvisionNetwork("deeplabv3_mobilenet_v3_large", 3, 5, pretrained=True)


def test_weights_that_cannot_be_fetched_are_one_line(monkeypatch):
    monkeypatch.setattr(torchvision_networks, "downloaded_file", lambda url: None)
    monkeypatch.setattr(torchvision_networks, "why_unreachable", lambda url: "it does not answer")
    with pytest.raises(UserError, match=r"cannot be had from https://.*: it does not answer; copy"):
        TorchvisionNetwork(SMALL, 3, 5, pretrained=True)


def test_other_names_are_refused_with_those_that_there_are():
    with pytest.raises(
        UserError, match=r"no segmentation network 'resnet50'; it has .*fcn_resnet50.*pspnet/<timm"
    ):
        TorchvisionNetwork("resnet50", 3, 5)


def test_what_the_weights_say():
    found = torchvision_origin(SMALL)
    assert len(found.classes) == 21
    assert found.classes[15] == "person"
    assert found.mean == pytest.approx((123.675, 116.28, 103.53))
    assert found.std == pytest.approx((58.395, 57.12, 57.375))
