"""Pre-training: the backbone learns the teacher's maps, resumes exactly, and a student starts from it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.errors import UserError
from deploy.files.images import write_png
from distill import cli
from distill.config import AugmentConfig, TrainConfig
from distill.losses.distillation_loss import parse_distillation
from distill.pretraining import pretrain as module
from distill.pretraining.command import parse
from distill.pretraining.config import PretrainConfig
from distill.pretraining.images import open_images
from distill.pretraining.networks import FeatureMaps, student_maps, teacher_maps
from distill.pretraining.pretrain import pretrain
from distill.training.checkpoint import digest, load_checkpoint, save_checkpoint
from student.zoo import build_network
from teacher.backbone import build_backbone
from teacher.weights import load_weights

ARCH = "edge/4"
TRAIN = TrainConfig(steps=8, batch_size=4, lr=5e-3, checkpoint_every=2, log_every=1)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eight photos of colored squares."""
    rng = np.random.default_rng(0)
    for number in range(8):
        squares = rng.integers(0, 255, (6, 7, 3)).astype(np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        write_png(tmp_path / "photos" / f"{number}.png", squares)
    return tmp_path / "photos"


@pytest.fixture(autouse=True)
def small_teacher(monkeypatch):
    """A teacher of random weights in place of one whose ImageNet weights must be fetched."""

    def build(name, channels, stride, *, pretrained, maps):
        assert pretrained
        torch.manual_seed(5)
        return build_backbone(name, channels, stride, maps=maps)

    monkeypatch.setattr("distill.pretraining.networks.build_backbone", build)
    monkeypatch.setattr("distill.pretraining.networks.why_missing", lambda name: "")


def config_of(photos: Path, out: Path, **fields) -> PretrainConfig:
    config = PretrainConfig(
        (photos,),
        student=ARCH,
        teacher="mobilenetv3_small_050",
        size=(48, 64),
        augment=AugmentConfig(crop=(48, 48)),
        train=TRAIN,
        precision="fp32",
        out=out,
    )
    return replace(config, **fields)


def test_the_backbone_learns_the_maps(photos, tmp_path):
    long = replace(TRAIN, steps=60, log_every=10)
    pretrain(config_of(photos, tmp_path / "out", train=long))
    log = (tmp_path / "out" / "pretraining" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in log]
    assert losses[0] > 1.2  # of two maps, each 1 for directions at random
    assert losses[-1] < 0.7 * losses[0]


def test_the_result_is_the_backbone_alone(photos, tmp_path):
    result = pretrain(config_of(photos, tmp_path / "out"))
    assert result == tmp_path / "out" / "backbone.safetensors"
    tensors, meta = load_checkpoint(result)
    backbone = build_network(ARCH, 3, 2).backbone
    assert tensors.keys() == {f"model.{name}" for name in backbone.state_dict()}
    assert meta["pretrained"] == {
        "student": ARCH,
        "teacher": "mobilenetv3_small_050",
        "loss": "cosine(layer3) + cosine(layer4)",
    }
    for path in (tmp_path / "out").rglob("*.safetensors"):
        assert b"photos" not in path.read_bytes()
    best, _ = load_checkpoint(tmp_path / "out" / "pretraining" / "best.safetensors")
    assert {name.split(".")[1] for name in best} == {"backbone"}


@pytest.mark.parametrize("arch", [ARCH, "pspnet/mobilenetv3_small_050"])
def test_a_student_starts_from_it(photos, tmp_path, arch):
    result = pretrain(config_of(photos, tmp_path / "out", student=arch, train=replace(TRAIN, steps=1)))
    network = build_network(arch, 3, 2)
    load_weights(network, result, 3)
    tensors, _ = load_checkpoint(result)
    for name, value in network.backbone.state_dict().items():
        assert torch.equal(value, tensors[f"model.{name}"]), name


def test_resuming_is_bit_exact(photos, tmp_path, monkeypatch):
    straight = pretrain(config_of(photos, tmp_path / "straight"))

    def die_after_saving(path, tensors, meta):
        save_checkpoint(path, tensors, meta)
        if path.name == "last.safetensors" and meta["step"] == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("distill.training.train_state.save_checkpoint", die_after_saving)
        with pytest.raises(KeyboardInterrupt):
            pretrain(config_of(photos, tmp_path / "killed"))
    resumed = pretrain(config_of(photos, tmp_path / "killed", resume=True))
    again = pretrain(config_of(photos, tmp_path / "killed", resume=True))  # nothing is left to train
    expected, meta = load_checkpoint(straight)
    for result in (resumed, again):
        tensors, found = load_checkpoint(result)
        assert digest(tensors) == digest(expected)
        assert found == meta


def test_resuming_with_other_settings_or_images_is_refused(photos, tmp_path):
    config = config_of(photos, tmp_path / "out", train=replace(TRAIN, steps=1))
    pretrain(config)
    with pytest.raises(UserError, match="already holds a run; add --resume"):
        pretrain(config)
    with pytest.raises(UserError, match=r"other settings: seed \(seed was 0, is 1\)"):
        pretrain(replace(config, resume=True, seed=1))
    write_png(photos / "new.png", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(UserError, match=r"1 of train added \(photos/new\.png\)"):
        pretrain(replace(config, resume=True))


def test_the_teacher_sees_photos_as_in_its_own_training(photos, tmp_path, monkeypatch):
    seen: list[torch.Tensor] = []

    original = module.online_teacher

    def recorded(networks, accelerator, **options):
        teach = original(networks, accelerator, **options)
        return lambda batch, image: (seen.extend([batch.image, image]), teach(batch, image))[1]

    monkeypatch.setattr(module, "online_teacher", recorded)
    pretrain(config_of(photos, tmp_path / "out", train=replace(TRAIN, steps=1)))
    raw, image = seen[:2]
    mean = 255 * torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = 255 * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    torch.testing.assert_close(image, (raw - mean) / std)


def test_maps_have_names_from_the_last_backwards():
    output = FeatureMaps(build_network(ARCH, 3, 2).backbone)(torch.zeros(2, 3, 64, 64))
    assert {name: maps.shape[-1] for name, maps in output.features.items()} == {
        "layer1": 16,
        "layer2": 8,
        "layer3": 4,
        "layer4": 2,
    }
    teacher = teacher_maps("mobilenetv3_small_050", 3, parse_distillation("cosine(layer2)"))
    maps = teacher.eval()(torch.zeros(1, 3, 64, 64)).features
    assert {name: each.shape[-1] for name, each in maps.items()} == {"layer2": 8, "layer3": 4, "layer4": 2}
    assert student_maps("pspnet/mobilenetv3_small_050", 3)(torch.zeros(2, 3, 64, 64)).features.keys() == {
        "layer3",
        "layer4",
    }


def test_images_of_several_folders_and_channels(photos, tmp_path):
    other = tmp_path / "more" / "photos"
    write_png(other / "0.png", np.zeros((9, 9, 3), np.uint8))
    splits = open_images([photos, other], ())
    assert len(splits.train) == 9
    assert splits.train.ids[0] == "photos-1/0.png"
    assert splits.train.ids[8] == "photos-2/0.png"
    for channel in ("before", "after"):
        write_png(tmp_path / "radar" / channel / "x.png", np.zeros((6, 8), np.uint8))
    splits = open_images([tmp_path / "radar"], ("before", "after"))
    assert splits.train[0].image.shape == (2, 6, 8)


def test_where_the_weights_of_the_teacher_were_found_is_said(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("teacher.external.places.where_found", lambda name: f"package of {name}")
    pretrain(config_of(photos, tmp_path / "out", train=replace(TRAIN, steps=1)))
    line = "teacher mobilenetv3_small_050: ImageNet weights (package of mobilenetv3_small_050)"
    assert line in capsys.readouterr().err


def test_missing_weights_of_the_teacher_have_a_remedy(monkeypatch):
    monkeypatch.setattr("distill.pretraining.networks.why_missing", lambda name: "no network")
    words = r"--teacher resnet18: its ImageNet weights cannot be had: no network; connect once .*, or take a backbone"
    with pytest.raises(UserError, match=words) as caught:
        teacher_maps("resnet18", 3, parse_distillation("cosine(layer4)"))
    assert ".weights" not in str(caught.value)


class TestMistakes:
    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"student": "unet"}, "--student unet: has no backbone to train alone; choose edge-"),
            (
                {"student": "torchvision/lraspp_mobilenet_v3_large"},
                "its backbone gives no list of maps; choose",
            ),
            ({"student": "edge-tiny"}, "unknown network 'edge-tiny'"),
            ({"teacher": "resnet0"}, "timm has no model 'resnet0'"),
            ({"loss": "kl(t=2)"}, "--loss kl: compares outputs, of which there are none yet"),
            ({"loss": "cosine(layer9)"}, "backbones have no map 'layer9'; they have layer1"),
            (
                {"loss": "cosine(layer1)", "student": "pspnet/mobilenetv3_small_050"},
                "has no feature 'layer1'",
            ),
            ({"train": replace(TRAIN, batch_size=1)}, "--train.batch-size 1: leaves one image"),
            ({"channels": ("VV",)}, r"has 3 channels, but names of 1 \(VV\)"),
        ],
    )
    def test_settings(self, photos, tmp_path, fields, words):
        with pytest.raises(UserError, match=words):
            pretrain(config_of(photos, tmp_path / "out", **fields))
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--train.steps", "5"], "give one or more folders of images first"),
            (["a", "--trian.steps", "5"], r"unknown field --trian\.steps \(did you mean train\.steps\?\)"),
            (["a", "--size", "4", "4"], "--size 4 4: sides must be at least 8"),
            (["a", "--size", "64", "64"], r"--augment\.crop 128 128: is larger than --size 64 64"),
            (["a", "--augment.balance", "0.5"], "is for images with labels"),
            (["a", "--train.steps", "0"], r"--train\.steps 0: must be at least 1"),
            (["a", "--train.lr", "0"], r"--train\.lr 0\.0: must be above 0"),
        ],
    )
    def test_command_lines(self, arguments, words):
        with pytest.raises(UserError, match=words):
            parse(arguments)

    def test_images(self, photos, tmp_path):
        with pytest.raises(UserError, match="none: no such folder"):
            cli.main(["pretrain", str(tmp_path / "none"), "--precision=fp32"])
        (photos / "5.png").write_bytes((photos / "5.png").read_bytes()[:70])
        with pytest.raises(UserError, match=r"photos/5\.png: "):
            pretrain(config_of(photos, tmp_path / "out"))
        write_png(photos / "5.png", np.zeros((9, 9), np.uint8))
        with pytest.raises(UserError, match=r"5\.png: has 1 channels, but this data set has 3"):
            pretrain(config_of(photos, tmp_path / "out"))
        assert not (tmp_path / "out").exists()
        (photos / "5.png").unlink()
        assert pretrain(config_of(photos, tmp_path / "out", train=replace(TRAIN, steps=1), seed=1)).exists()
