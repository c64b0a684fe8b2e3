"""Networks of torchvision and segmentation_models_pytorch become checkpoints that compute the same."""

import json
import warnings
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torchvision import models

from deploy.errors import UserError
from distill.convert.command import main
from distill.training.checkpoint import load_network, read_meta
from student.zoo import build_network
from teacher.external.package_files import package_of
from teacher.weights import load_weights
from tests.distill.convert.published_networks import randomized

NAMES = "road,water,tree,house,sky"
LRASPP, DEEPLAB = "lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"


def converted(path):
    network = build_network(in_channels=3, num_outputs=5, **read_meta(path)["model"])
    load_network(network, path)
    return network.eval()


def torchvision_network(name, classes=5, **options):
    return randomized(
        models.get_model(name, weights=None, weights_backbone=None, num_classes=classes, **options)
    ).eval()


def smp_network(architecture="PSPNet", encoder="resnet18", **options) -> Any:
    return randomized(
        smp.create_model(architecture, encoder, encoder_weights=None, classes=5, **options)
    ).eval()


def convert(tmp_path, state, *options):
    torch.save(state, tmp_path / "a.pth")
    return main([str(tmp_path / "a.pth"), str(tmp_path / "a.safetensors"), *options])


@pytest.mark.parametrize(("name", "aux"), [(LRASPP, None), (DEEPLAB, True), (DEEPLAB, False)])
def test_a_network_of_torchvision(tmp_path, capsys, name, aux):
    theirs = torchvision_network(name, **({} if aux is None else {"aux_loss": aux}))
    assert convert(tmp_path, theirs.state_dict(), "--classes", NAMES) == 0
    out, meta = capsys.readouterr().out, read_meta(tmp_path / "a.safetensors")
    assert f"torchvision: torchvision/{name}, 5 classes" in out
    assert "none left over or missing" in out
    assert (
        "mean 123.675 116.28 103.53, std 58.395 57.12 57.375 of R G B in 0..255 (usual for torchvision)"
        in out
    )
    assert (meta["model"]["arch"], meta["model"]["aux"]) == (f"torchvision/{name}", bool(aux))
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        found = converted(tmp_path / "a.safetensors")(image).logits
        expected = theirs(image)["out"]
    found = torch.nn.functional.interpolate(found, (64, 96), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, expected)


def test_of_21_classes_the_names_are_those_of_torchvision(tmp_path):
    assert convert(tmp_path, torchvision_network(LRASPP, 21).state_dict()) == 0
    assert read_meta(tmp_path / "a.safetensors")["classes"][:3] == ["__background__", "aeroplane", "bicycle"]


@pytest.mark.parametrize(
    ("architecture", "encoder"),
    [("PSPNet", "resnet18"), ("FPN", "tu-mobilenetv3_small_050"), ("Unet", "resnet18")],
)
def test_a_network_of_smp(tmp_path, capsys, architecture, encoder):
    theirs = smp_network(architecture, encoder)
    arch = f"smp/{architecture}/{encoder}"
    assert convert(tmp_path, theirs.state_dict(), "--arch", arch, "--classes", NAMES) == 0
    assert f"{arch}, 5 classes, " in capsys.readouterr().out
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        found = converted(tmp_path / "a.safetensors")(image).logits
        expected = theirs.segmentation_head[0](theirs.decoder(theirs.encoder(image)))
    torch.testing.assert_close(found, expected)


def test_a_folder_of_smp_says_which_network_it_is(tmp_path, capsys):
    theirs = smp_network(aux_params={"classes": 3})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.save_pretrained(tmp_path / "net")
    target = str(tmp_path / "a.safetensors")
    assert main([str(tmp_path / "net"), target, "--classes", NAMES]) == 0
    assert "smp/PSPNet/resnet18, 5 classes" in (out := capsys.readouterr().out)
    assert "2 of a head for whole images left out" in out
    config = json.loads((tmp_path / "net" / "config.json").read_text())
    (tmp_path / "net" / "config.json").write_text(json.dumps(config | {"encoder_depth": 4}))
    with pytest.raises(UserError, match="encoder_depth is 4, and smp/PSPNet/… is built with 3"):
        main([str(tmp_path / "net"), target, "--classes", NAMES])
    (tmp_path / "net" / "config.json").write_text("{}")
    with pytest.raises(UserError, match="names no network of SMP"):
        main([str(tmp_path / "net"), target, "--classes", NAMES])


class TestRefused:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (
                lambda s: s.pop("classifier.cbr.0.weight"),
                r"does not fit torchvision/lraspp.*: 1 missing \(first classifier",
            ),
            (lambda s: s.update(extra=torch.ones(1)), r"1 unexpected \(first extra\); nothing is converted"),
            (
                lambda s: s.update({"classifier.cbr.1.bias": torch.ones(3)}),
                r"1 of another shape \(first classifier.cbr.1",
            ),
            (lambda s: s.update({"classifier.cbr.1.bias": torch.full((128,), torch.nan)}), "not finite"),
        ],
    )
    def test_what_does_not_fit(self, tmp_path, change, words):
        state = torchvision_network(LRASPP).state_dict()
        change(state)
        with pytest.raises(UserError, match=words):
            convert(tmp_path, state, "--classes", NAMES)
        assert not (tmp_path / "a.safetensors").exists()

    def test_smp_without_or_with_another_name(self, tmp_path):
        state = smp_network().state_dict()
        with pytest.raises(UserError, match="whose tensors do not say which; give --arch smp/"):
            convert(tmp_path, state, "--classes", NAMES)
        with pytest.raises(UserError, match=r"does not fit smp/PSPNet/resnet34: \d+ missing"):
            convert(tmp_path, state, "--classes", NAMES, "--arch", "smp/PSPNet/resnet34")
        with pytest.raises(UserError, match="does not name its 5 classes"):
            convert(tmp_path, state, "--arch", "smp/PSPNet/resnet18")

    def test_an_encoder_of_unknown_normalization(self, tmp_path):
        state = smp_network("FPN", "xception").state_dict()
        arguments = ("--classes", NAMES, "--arch", "smp/FPN/xception")
        with pytest.raises(UserError, match="nothing says how images of smp/FPN/xception are normalized"):
            convert(tmp_path, state, *arguments)
        given = ("--mean", "127.5", "127.5", "127.5", "--std", "127.5", "127.5", "127.5")
        assert convert(tmp_path, state, *arguments, *given) == 0
        assert read_meta(tmp_path / "a.safetensors")["mean"] == [127.5, 127.5, 127.5]

    def test_the_original_file_as_weights_names_the_command(self, tmp_path):
        state = smp_network().state_dict()
        torch.save(state, tmp_path / "a.pth")
        assert package_of(state) == "segmentation_models_pytorch"
        with pytest.raises(UserError, match="convert it first: edgedistill convert"):
            load_weights(build_network("smp/PSPNet/resnet18", 3, 5), tmp_path / "a.pth", 3)
