"""Every preset takes its first two steps, teacher and distilled student, on its own data."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deploy.files.images import write_png
from distill.distillation.build import build_distillation
from distill.pipeline.networks import new_network
from distill.pipeline.prepare import prepare
from distill.pipeline.stages import training_stage
from distill.tasks.registry import PRESETS
from distill.training.loop import train
from tests.distill.data.grasp.grasp_files import write_cornell, write_jacquard

REAL = {
    "camvid-cpu": "camvid",
    "camvid": "camvid",
    "cityscapes": "cityscapes",
    "voc": "voc",
    "ombria": "ombria",
    "cornell-rgb": "cornell_rgb",
}
WRITTEN = {"cornell": write_cornell, "jacquard": write_jacquard}


def marked(name):
    marks = [pytest.mark.slow] if name not in ("smoke", "quick") else []
    return pytest.param(name, marks=[*marks, *([pytest.mark.realdata(REAL[name])] if name in REAL else [])])


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3)):  # 8: as many as calibration asks for
        for index in range(count):
            write_png(
                tmp_path / split / "images" / f"{index}.png", rng.integers(0, 256, (90, 120, 3), np.uint8)
            )
            write_png(tmp_path / split / "masks" / f"{index}.png", rng.integers(0, 4, (90, 120), np.uint8))
    return tmp_path


@pytest.mark.parametrize("name", [marked(name) for name in PRESETS])
def test_two_steps(name, tmp_path, photos):
    config = PRESETS[name]()
    data = replace(config.data, root=photos) if config.data.name == "folder" else config.data
    if name in WRITTEN:
        WRITTEN[name](tmp_path / name)
        data = replace(data, root=tmp_path / name, size=(64, 64))  # 300 take a CPU minutes
    elif data.name == "tabletop":
        data = replace(data, synthetic_counts=(16, 2, 2), size=(64, 64))
    short = {"steps": 2, "batch_size": 2, "workers": 0}
    height, width = config.augment.crop if data.size == config.data.size else data.size
    config = replace(
        config,
        data=data,
        augment=replace(
            config.augment, crop=(min(height, 96), min(width, 96))
        ),  # full size takes a CPU minutes
        precision="fp32",  # one process can use only one, and the other tests use this
        out=tmp_path / "run",
        teacher=replace(
            config.teacher, pretrained=False
        ),  # fetched weights are tested apart, without a network
        student=replace(config.student, pretrained=False),
        teacher_train=replace(config.teacher_train, **short),
        student_train=replace(config.student_train, **short),
    )
    context = prepare(config)
    teacher = None
    for stage_name, model, training in (
        ("teacher", config.teacher, config.teacher_train),
        ("student", config.student, config.student_train),
    ):
        network = new_network(context.config, model, context.splits, context.task)
        before = torch.cat([p.detach().flatten() for p in network.parameters()])
        stage = replace(training_stage(context, stage_name, model), evaluate=None)
        lesson = None
        if teacher is not None:
            lesson = build_distillation(teacher, network, stage, context)
        seconds = train(network, stage, training, context.accelerator, distillation=lesson)
        after = torch.cat([p.detach().flatten() for p in network.parameters()])
        assert seconds > 0
        assert torch.isfinite(after).all()
        assert not torch.equal(before, after)
        teacher = network
