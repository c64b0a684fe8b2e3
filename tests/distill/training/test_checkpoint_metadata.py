"""The metadata of checkpoints, and teachers that do not fit the data."""

from dataclasses import replace

import pytest
import torch

from deploy.bundle.manifest import ClassInfo
from deploy.errors import UserError
from distill.config import DataConfig, ModelConfig
from distill.tasks.registry import open_splits
from distill.data.stats import Stats
from distill.pipeline.stages import check_teachers
from distill.presets import smoke
from distill.training.checkpoint import pack, save_checkpoint
from distill.training.checkpoint_metadata import (
    check_metadata,
    checkpoint_metadata,
    find_metadata,
    network_from,
)
from student.zoo import build_network

MODEL = ModelConfig("pspnet/mobilenetv3_small_050", output_stride=16, head_channels=16)
STATS = Stats((-12.0, -19.0), (5.0, 4.0), (10, 20), 8)


@pytest.fixture(scope="module")
def splits():
    return open_splits(DataConfig("synthetic", size=(32, 32), synthetic_counts=(2, 1, 1)))


@pytest.fixture
def checkpoint(tmp_path, splits):
    network = build_network(MODEL.arch, 2, 2, output_stride=16, head_channels=16)
    path = tmp_path / "best.safetensors"
    save_checkpoint(
        path,
        pack("model", network.state_dict()),
        {"step": 1, **checkpoint_metadata(MODEL, True, splits, STATS)},
    )
    return path, network


def test_a_checkpoint_is_enough_to_build_its_network(checkpoint, splits):
    path, network = checkpoint
    again = network_from(path, splits, STATS)
    assert again.state_dict().keys() == network.state_dict().keys()
    image = torch.randn(1, 2, 64, 64)
    assert torch.equal(again.eval()(image).logits, network.eval()(image).logits)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"channels": ("VV",)}, r"trained with 2 channels \(VV, VH\), the data has 1 \(VV\)"),
        (
            {"classes": tuple(ClassInfo(n, (0, 0, 0)) for n in "abcd")},
            r"2 classes .*, the data has 4 \(a, b, c, …\)",
        ),
        (
            {"mean": (-12.0, -18.7)},
            r"normalized by mean -12 -19, std 5 4, this data has mean -12 -18.7, std 5 4; use",
        ),
        (
            {"std": (5.0, 9.0)},
            r"normalized by mean -12 -19, std 5 4, this data has mean -12 -19, std 5 9; use",
        ),
        ({"quality": "sigmoid"}, r"gives the quality of a grasp as a number, --loss.task asks for a logit"),
        (
            {"normalize": "patch"},
            r"was trained with --data.normalize set, asked for is patch; use set here, or another teacher",
        ),
    ],
)
def test_a_mismatch_is_a_one_line_error(checkpoint, splits, change, words):
    path, _ = checkpoint
    data = {k: v for k, v in change.items() if k in ("channels", "classes", "quality")}
    stats = {k: v for k, v in change.items() if k in ("mean", "std", "normalize")}
    with pytest.raises(UserError, match=words) as error:
        check_metadata(path, find_metadata(path), replace(splits, **data), replace(STATS, **stats))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_statistics_of_almost_the_same_images_are_fine(checkpoint, splits):
    path, _ = checkpoint
    check_metadata(path, find_metadata(path), splits, replace(STATS, mean=(-12.1, -19.1), std=(5.1, 4.1)))


def test_files_without_metadata(tmp_path, splits):
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    torch.save({}, tmp_path / "x.pth")
    for name in ("x.safetensors", "x.pth", "absent.safetensors"):
        assert find_metadata(tmp_path / name) is None
        with pytest.raises(
            UserError, match=f"{name}: no checkpoint that tells its network; give best.safetensors"
        ):
            network_from(tmp_path / name, splits, STATS)


def test_an_external_teacher_is_checked_before_anything_is_trained(checkpoint, splits):
    path, _ = checkpoint
    config = smoke()
    given = replace(config.teacher, arch=MODEL.arch, weights=path)
    other = replace(STATS, mean=(3.0, -19.0))
    untrained = replace(config, teacher=given, teacher_train=replace(config.teacher_train, steps=0))
    with pytest.raises(
        UserError, match=r"best\.safetensors: was trained on images normalized by mean -12 -19"
    ):
        check_teachers(untrained, splits, other)
    further = replace(config, distill=replace(config.distill, teachers=(path,)))
    with pytest.raises(UserError, match=r"best\.safetensors: was trained on images normalized by"):
        check_teachers(further, splits, other)
    # weights that only initialize a training may come from other images
    check_teachers(replace(config, teacher=given), splits, other)
    check_teachers(untrained, splits, STATS)
