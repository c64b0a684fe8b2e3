"""The metadata of checkpoints, and teachers that do not fit the data."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deploy.bundle.manifest import ClassInfo
from deploy.errors import UserError
from distill.config import DataConfig, ModelConfig
from distill.data.stats import Stats
from distill.losses.registry import GRASP_LOSSES
from distill.losses.supervised.grasp import quality_kind
from distill.losses.task_loss import parse_task_terms
from distill.pipeline.prepare import check_teachers
from distill.presets import smoke
from distill.tasks.grasp import GraspTask
from distill.tasks.registry import open_splits
from distill.training.checkpoint import pack, save_checkpoint
from distill.training.checkpoint_metadata import (
    check_metadata,
    checkpoint_metadata,
    find_metadata,
    network_from,
    require_metadata,
)
from student.edge import FORMER_DEPTHS
from student.zoo import build_network
from tests.distill.tiny import prepared_data

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
        {"step": 1, **checkpoint_metadata(MODEL, True, prepared_data(splits, STATS))},
    )
    return path, network


def test_a_checkpoint_is_enough_to_build_its_network(checkpoint, splits):
    path, network = checkpoint
    again = network_from(path, prepared_data(splits, STATS))
    assert again.state_dict().keys() == network.state_dict().keys()
    image = torch.randn(1, 2, 64, 64)
    assert torch.equal(again.eval()(image).logits, network.eval()(image).logits)


def test_a_checkpoint_from_before_depths_were_recorded_has_two_blocks_a_stage(tmp_path, splits):
    data = prepared_data(splits, STATS)
    model = ModelConfig("edge/4", depths=FORMER_DEPTHS)
    network, path = build_network(model.arch, 2, 2, depths=FORMER_DEPTHS), tmp_path / "best.safetensors"
    meta = checkpoint_metadata(model, True, data)
    assert meta["model"]["depths"] == FORMER_DEPTHS
    del meta["model"]["depths"]
    save_checkpoint(path, pack("model", network.state_dict()), {"step": 1, **meta})
    assert network_from(path, data).state_dict().keys() == network.state_dict().keys()


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
        (
            {"normalize": "patch"},
            r"was trained with --data.normalize set, this run has patch; use set here, or another teacher",
        ),
        (
            {"log_floor": (0.1, 0.2)},
            r"was trained with --data\.scale linear, this run has log; use linear here, or another teacher",
        ),
        (
            {"clip": ((-30.0, 0.0), (-40.0, -5.0))},
            r"was trained with --data\.scale linear, this run has percentile; use linear here, or another teacher",
        ),
    ],
)
def test_a_mismatch_is_a_one_line_error(checkpoint, splits, change, words):
    path, _ = checkpoint
    data = {k: v for k, v in change.items() if k in ("channels", "classes")}
    stats = {k: v for k, v in change.items() if k in ("mean", "std", "normalize", "log_floor", "clip")}
    with pytest.raises(UserError, match=words) as error:
        check_metadata(
            path, require_metadata(path), prepared_data(replace(splits, **data), replace(STATS, **stats))
        )
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("loss", "theirs"), [("bce", {}), ("smooth_l1", {"quality": "sigmoid"})])
def test_a_quality_that_would_be_read_in_another_way(loss, theirs):
    terms = parse_task_terms(loss, GRASP_LOSSES)
    task = GraspTask(terms, quality_kind(term.loss for term in terms))
    with pytest.raises(
        UserError, match=r"gives the quality of a grasp as a (number|logit), --loss.task asks for a"
    ):
        task.check_metadata(Path("best.safetensors"), theirs, STATS)
    task.check_metadata(Path("best.safetensors"), task.metadata(STATS), STATS)


def test_statistics_of_almost_the_same_images_are_fine(checkpoint, splits):
    path, _ = checkpoint
    nearly = replace(STATS, mean=(-12.1, -19.1), std=(5.1, 4.1))
    check_metadata(path, require_metadata(path), prepared_data(splits, nearly))


def test_floors_are_compared(tmp_path, splits):
    stats = replace(STATS, log_floor=(1e-6, 1e-9))
    path, meta = tmp_path / "best.safetensors", checkpoint_metadata(MODEL, True, prepared_data(splits, stats))
    check_metadata(path, meta, prepared_data(splits, replace(stats, log_floor=(1.1e-6, 1e-9))))
    other = prepared_data(splits, replace(stats, log_floor=(1e-6, 5e-9)))
    with pytest.raises(
        UserError, match=r"std 5 4 of ln x, where x is at least 1e-06 1e-09, this data has"
    ) as error:
        check_metadata(path, meta, other)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"trained with --data\.scale log, this run has linear; use log here"):
        check_metadata(path, meta, prepared_data(splits, STATS))


def test_files_without_metadata(tmp_path, splits):
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    torch.save({}, tmp_path / "x.pth")
    for name in ("x.safetensors", "x.pth", "absent.safetensors"):
        assert find_metadata(tmp_path / name) is None
        with pytest.raises(
            UserError, match=f"{name}: is not a checkpoint that describes its network; give best.safetensors"
        ):
            network_from(tmp_path / name, prepared_data(splits, STATS))


def test_an_external_teacher_is_checked_before_anything_is_trained(checkpoint, splits):
    path, _ = checkpoint
    config = smoke()
    given = replace(config.teacher, arch=MODEL.arch, weights=path)
    other = replace(STATS, mean=(3.0, -19.0))
    untrained = replace(config, teacher=given, teacher_train=replace(config.teacher_train, steps=0))
    with pytest.raises(
        UserError, match=r"best\.safetensors: was trained on images normalized by mean -12 -19"
    ):
        check_teachers(untrained, prepared_data(splits, other))
    further = replace(config, distill=replace(config.distill, teachers=(path,)))
    with pytest.raises(UserError, match=r"best\.safetensors: was trained on images normalized by"):
        check_teachers(further, prepared_data(splits, other))
    # weights that only initialize a training may come from other images
    check_teachers(replace(config, teacher=given), prepared_data(splits, other))
    check_teachers(untrained, prepared_data(splits, STATS))


def test_ranges_are_compared(tmp_path, splits):
    stats = replace(STATS, clip=((-30.0, 0.0), (-40.0, -5.0)))
    path, meta = tmp_path / "best.safetensors", checkpoint_metadata(MODEL, True, prepared_data(splits, stats))
    meta = json.loads(json.dumps(meta))  # as from a file
    nearly = replace(stats, clip=((-30.1, 0.1), (-40.0, -5.1)))
    check_metadata(path, meta, prepared_data(splits, nearly))
    for clip in (((-30.0, 0.0), (-40.0, -4.0)), ((-31.0, 0.0), (-40.0, -5.0))):
        with pytest.raises(UserError, match=r"std 5 4 of x held between -30 -40 and 0 -5, this data has"):
            check_metadata(path, meta, prepared_data(splits, replace(stats, clip=clip)))
