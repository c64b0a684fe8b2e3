"""Local weights: matching ones are loaded, others reported, and nothing is unpickled."""

import pickle

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from timm.models import adapt_input_conv
from torch import nn

from deploy.errors import UserError
from student.zoo import build_network
from teacher.pspnet import PSPNet
from teacher.weights import load_backbone_state, load_weights, read_state


def psp(num_outputs=4, in_channels=3, backbone="resnet18"):
    return PSPNet(backbone, in_channels, num_outputs, head_channels=32)


def test_torchvision_resnet_gives_the_same_features(tmp_path):
    reference = torchvision.models.resnet18(weights=None).eval()
    torch.save(reference.state_dict(), tmp_path / "resnet18.pth")
    network = PSPNet("resnet18", 3, 4, output_stride=32, head_channels=32)
    load_weights(network, tmp_path / "resnet18.pth", 3)
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        stem = reference.maxpool(reference.relu(reference.bn1(reference.conv1(x))))
        expected = reference.layer4(reference.layer3(reference.layer2(reference.layer1(stem))))
        features = network.backbone.eval()(x)[-1]
    torch.testing.assert_close(features, expected)


def test_first_convolution_adapts_to_two_channels(tmp_path):
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "rgb.pth")
    network = psp(in_channels=2)
    load_weights(network, tmp_path / "rgb.pth", 2)
    assert network.backbone.get_parameter("conv1.weight").shape[1] == 2


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_all_first_convolutions_of_a_stem_adapt(channels):
    """As of FastViT, whose stem is the sum of several."""

    def stem(count):
        return nn.ModuleDict(
            {"a": nn.Conv2d(count, 5, 3), "b": nn.Conv2d(count, 5, 1), "c": nn.Conv2d(5, 3, 1)}
        )

    source, network = stem(3), stem(channels)
    load_backbone_state(network, source.state_dict(), channels, "a stem")
    for name in "ab":
        weight = source.get_parameter(f"{name}.weight").detach()
        found = network.get_parameter(f"{name}.weight").detach()
        torch.testing.assert_close(found, adapt_input_conv(channels, weight))


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_weights_for_other_channels_than_three_are_refused(tmp_path, channels):
    """As of a ResNet for the 13 bands of Sentinel-2: what a band means is not known."""
    state = torchvision.models.resnet18(weights=None).state_dict()
    torch.save(state | {"conv1.weight": torch.zeros(64, 13, 7, 7)}, tmp_path / "bands.pth")
    with pytest.raises(UserError, match=r"bands\.pth.*conv1\.weight.*13"):
        load_weights(psp(in_channels=channels), tmp_path / "bands.pth", channels)


def test_whole_network_round_trip(tmp_path):
    source, target = psp(), psp()
    save_file({f"model.{k}": v for k, v in source.state_dict().items()}, tmp_path / "best.safetensors")
    load_weights(target, tmp_path / "best.safetensors", 3)
    for name, value in source.state_dict().items():
        torch.testing.assert_close(target.state_dict()[name], value)


@pytest.mark.parametrize("with_aux", [True, False])
def test_the_auxiliary_head_may_be_missing_on_either_side(tmp_path, with_aux):
    source = PSPNet("resnet18", 3, 4, head_channels=32, aux=with_aux)
    target = PSPNet("resnet18", 3, 4, head_channels=32, aux=not with_aux)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    load_weights(target, tmp_path / "w.safetensors", 3)
    torch.testing.assert_close(target.classifier.weight, source.classifier.weight)


def test_other_class_count_is_said_in_classes(tmp_path):
    save_file(psp(num_outputs=19).state_dict(), tmp_path / "cityscapes.safetensors")
    with pytest.raises(UserError, match=r"cityscapes\.safetensors.*19 classes.*4"):
        load_weights(psp(), tmp_path / "cityscapes.safetensors", 3)


def test_missing_and_unexpected_names_are_reported(tmp_path):
    state = psp().backbone.state_dict()
    state["layer9.weight"] = state.pop("layer1.0.conv1.weight")
    save_file(state, tmp_path / "odd.safetensors")
    with pytest.raises(
        UserError, match=r"1 missing \(layer1\.0\.conv1\.weight\), 1 unexpected \(layer9\.weight\)"
    ):
        load_weights(psp(), tmp_path / "odd.safetensors", 3)


def test_another_architecture_is_reported(tmp_path):
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "r18.pth")
    with pytest.raises(
        UserError, match=r"another shape, first layer1.0.conv1.weight: \(64, 64, 3, 3\) in the file"
    ):
        load_weights(psp(backbone="resnet50"), tmp_path / "r18.pth", 3)


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_pickle_is_never_executed(tmp_path, capsys):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match=r"evil\.pth: not a readable weights file"):
        read_state(tmp_path / "evil.pth")
    assert "executed" not in capsys.readouterr().out


def test_python_objects_are_named_and_never_unpickled(tmp_path, capsys):
    torch.save({"state_dict": {"a": torch.ones(1)}, "message_hub": Evil()}, tmp_path / "mm.pth")
    with pytest.raises(
        UserError, match=r"mm\.pth: holds Python objects \(.*print\), which are never unpickled; save"
    ):
        read_state(tmp_path / "mm.pth")
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pth"])
def test_damaged_files_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x10\x00\x00\x00")
    with pytest.raises(UserError, match=name):
        read_state(tmp_path / name)
    with pytest.raises(UserError, match="no such weights file"):
        read_state(tmp_path / "absent.pth")


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_large_100", "tf_efficientnet_lite0"])
def test_timms_own_classifier_files_fit_its_backbones(tmp_path, name):
    source = timm.create_model(name)
    save_file(source.state_dict(), tmp_path / "timm.safetensors")
    network = psp(backbone=name)
    load_weights(network, tmp_path / "timm.safetensors", 3)
    first = next(k for k, v in source.state_dict().items() if v.ndim == 4)
    torch.testing.assert_close(network.backbone.state_dict()[first], source.state_dict()[first])


def test_a_network_without_a_backbone_is_loaded_whole(tmp_path):
    source, target = (build_network("ggcnn", channels, 4) for channels in (2, 2))
    save_file(source.state_dict(), tmp_path / "best.safetensors")
    load_weights(target, tmp_path / "best.safetensors", 2)
    assert torch.equal(target.layer4[0].weight, source.layer4[0].weight)
    with pytest.raises(UserError, match="tensors have another shape"):
        load_weights(build_network("ggcnn2", 2, 4), tmp_path / "best.safetensors", 2)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"", b"weights\n", b"\x80\x02.", b"c", b"(lp0\n.", b"PK\x03\x04", b"\x80\x04K\x01.", bytes(range(256))],
)
def test_what_is_no_weights_file_is_one_line(tmp_path, suffix, content):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(
        UserError, match=rf"a\{suffix}: (not a readable weights file \(.+\)|holds more than)"
    ) as caught:
        read_state(path)
    assert "\n" not in str(caught.value)
