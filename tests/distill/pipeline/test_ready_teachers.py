"""Teachers that are used as they are: bundles, ONNX files, checkpoints and published networks with other classes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.bundle.bundle_files import read_manifest, set_decision
from deploy.errors import UserError
from deploy.loading import load
from distill.distillation.ready_made import ready_teacher
from distill.distillation.ready_teacher import ReadyTeacher
from distill.losses.distillation_loss import VOID
from distill.pipeline import pipeline
from distill.pipeline.pipeline import run
from distill.pipeline.prepare import prepare
from distill.pipeline.stages import train_all
from distill.run import parse
from distill.training.checkpoint import load_checkpoint, pack, read_meta, save_checkpoint
from student.device import folded
from student.zoo import build_network
from teacher.external.exported import open_exported
from teacher.external.exported_network import ExportedNetwork
from tests.distill.pipeline.ready_teachers import LARGE, SMALL, distilled, first_image, parsed, write_map
from tests.teacher.external.hf_folders import IMAGENET, NAMES, saved
from tests.teacher.external.test_exported import write_onnx


@pytest.mark.slow
def test_a_whole_run(tmp_path, bundle):
    config = parsed(tmp_path, f"--teacher.bundle={bundle}", "--distill.views=1", "--int8.no-enabled")
    run(config)
    assert not (config.out / "teacher").exists()
    assert not (config.out / "teacher.bundle").exists()
    assert (config.out / "report.html").exists()
    teacher, student = json.loads((config.out / "report.json").read_text())["rows"]
    assert teacher["arch"].startswith("secret-teacher, SHA-256 ")
    assert (teacher["form"], teacher["latency"], teacher["macs"]) == (None, None, None)
    assert 0 < teacher["score"] < 1
    assert student["form"] is not None
    sha256 = open_exported(bundle).sha256
    assert (
        read_manifest(config.out / "student.bundle").provenance["teacher"]
        == f"secret-teacher, SHA-256 {sha256}"
    )
    for path in filter(Path.is_file, (config.out / "student.bundle").rglob("*")):
        assert str(tmp_path).encode() not in path.read_bytes()
    checkpoint = config.out / "student" / "best.safetensors"
    tensors, _ = load_checkpoint(checkpoint)
    assert set(tensors) == {f"model.{name}" for name in build_network("edge/8", 2, 2).state_dict()}
    assert "secret-teacher" not in json.dumps(read_meta(checkpoint))


def test_the_teacher_sees_pixels_in_its_own_units(tmp_path, bundle):
    context = prepare(parsed(tmp_path, f"--teacher.bundle={bundle}", *LARGE))
    teacher = ready_teacher(context.config, context.splits, context.stats)
    image = context.splits.train[0].image
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (context.stats.mean, context.stats.std))
    given = image[:, :32, :48]
    found = teacher(((given - mean) / std)[None]).logits
    expected = load(bundle, "onnxruntime")(given.permute(1, 2, 0).numpy())._logits
    np.testing.assert_allclose(found.numpy(), expected[:, ::-1], atol=1e-5)  # land, water there water, land


def test_padding_is_the_mean_of_the_teacher(tmp_path, bundle):
    context = prepare(parsed(tmp_path, f"--teacher.bundle={bundle}", *LARGE))
    teacher = ready_teacher(context.config, context.splits, context.stats)
    torch.testing.assert_close(teacher(torch.zeros(1, 2, 32, 48)).logits, torch.zeros(1, 2, 4, 6))


@pytest.mark.parametrize("views", [0, 1])
def test_a_bundle_teaches(tmp_path, bundle, views, capsys):
    config = parsed(tmp_path, f"--teacher.bundle={bundle}", f"--distill.views={views}")
    lines, trained = distilled(config)
    assert [line["step"] for line in lines] == [1, 2]
    assert all(line["kd"] > 0 for line in lines)
    assert isinstance(trained.teacher.network.network, ExportedNetwork)
    assert trained.teacher.seconds == 0
    assert "teacher: val mIoU" in capsys.readouterr().err


def test_a_resumed_run_has_the_same_teacher(tmp_path, bundle):
    arguments = (f"--teacher.bundle={bundle}", write_map(tmp_path, {"water": "water", "land": "land"}))
    prepare(parsed(tmp_path, *arguments))
    shutil.move(bundle, tmp_path / "elsewhere")
    moved = (f"--teacher.bundle={tmp_path / 'elsewhere'}", arguments[1], "--resume")
    prepare(parsed(tmp_path, *moved))
    write_map(tmp_path, {"water": "land", "land": "water"})
    with pytest.raises(UserError, match="was started with another teacher"):
        prepare(parsed(tmp_path, *moved))
    write_map(tmp_path, {"water": "water", "land": "land"})
    set_decision(tmp_path / "elsewhere", None, 3.0)
    with pytest.raises(UserError, match="was started with another teacher"):
        prepare(parsed(tmp_path, *moved))


def test_a_cache_is_of_one_teacher(tmp_path, bundle):
    arguments = (f"--teacher.bundle={bundle}", "--distill.views=1", f"--distill.cache={tmp_path / 'cache'}")
    distilled(parsed(tmp_path, *arguments))
    set_decision(bundle, None, 3.0)
    with pytest.raises(UserError, match="is a cache of another teacher"):
        train_all(prepare(parse([*SMALL, *arguments, f"--out={tmp_path / 'other'}"])))


def test_an_onnx_file_teaches_with_the_normalization_that_is_given(tmp_path, photos):
    path, weight = write_onnx(tmp_path / "net.onnx")
    normalization = ("--teacher.mean", "0", "0", "0", "--teacher.std", "255", "255", "255")
    classes = write_map(tmp_path, {"car": "vehicle", "truck": "vehicle", "road": "road", "sky": None})
    context = prepare(parsed(tmp_path, *photos, f"--teacher.bundle={path}", *normalization, classes))
    trained = train_all(context)
    assert trained.teacher is not None
    image, mean, std = first_image(context)
    teacher = trained.teacher.network
    assert isinstance(teacher, ReadyTeacher)
    found = teacher((image - mean) / std)
    raw = torch.nn.functional.conv2d(image / 255, weight, stride=2)
    torch.testing.assert_close(found.logits[:, 0], raw[:, :2].logsumexp(1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.logits[:, 1], raw[:, 2], rtol=1e-4, atol=1e-4)
    best = torch.maximum(found.logits[:, 0], found.logits[:, 1])
    torch.testing.assert_close(found.features[VOID][:, 0], raw[:, 3] - best, rtol=1e-4, atol=1e-4)


def test_a_published_network_with_other_classes_teaches_features_too(tmp_path, photos, capsys):
    saved(tmp_path / "net", "segformer", **IMAGENET)
    assert NAMES == ("sky", "road", "car", "tree", "pole")
    arguments = (f"--teacher.arch=hf/{tmp_path / 'net'}", "--teacher.pretrained", "--distill.views=1")
    classes = write_map(tmp_path, {"car": "vehicle", "sky": "vehicle", "tree": "road", "*": None})
    loss = "--distill.loss=kl(t=2) + feature(layer4)"
    lines, trained = distilled(parsed(tmp_path, *photos, *arguments, classes, loss))
    assert all(line["kd"] > 0 for line in lines)
    teacher = trained.teacher.network
    assert isinstance(teacher, ReadyTeacher)
    assert teacher.own_mean is not None
    assert teacher.classes.targets == (0, 1, 0, 1, None)
    assert teacher.own_mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert "no class of the teacher is person" in capsys.readouterr().err


def test_a_checkpoint_for_other_classes_teaches(tmp_path, photos):
    network = build_network("edge/8", 3, 4)
    meta = {
        "model": {"arch": "edge/8", "depths": [1, 1, 1, 1], "aux": True},
        "channels": ["R", "G", "B"],
        "classes": ["car", "truck", "road", "person"],
        "mean": [1.0, 2.0, 3.0],
        "std": [4.0, 5.0, 6.0],
        "normalize": "set",
    }
    save_checkpoint(tmp_path / "a.safetensors", pack("model", network.state_dict()), meta)
    classes = write_map(tmp_path, {"car": "vehicle", "truck": "vehicle"})
    weights = f"--teacher.weights={tmp_path / 'a.safetensors'}"
    config = parsed(tmp_path, *photos, weights, classes)
    context = prepare(config)
    teacher = ready_teacher(config, context.splits, context.stats).eval()
    assert isinstance(teacher, ReadyTeacher)
    assert teacher.classes.targets == (0, 0, 1, 2)
    image, mean, std = first_image(context)
    own = (image - torch.tensor([1.0, 2, 3]).view(-1, 1, 1)) / torch.tensor([4.0, 5, 6]).view(-1, 1, 1)
    with torch.no_grad():
        found, raw = teacher((image - mean) / std).logits, network.eval()(own).logits
    torch.testing.assert_close(found[:, 0], raw[:, :2].logsumexp(1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[:, 1:], raw[:, 2:], rtol=1e-4, atol=1e-4)
    assert teacher.source == "edge/8, a.safetensors"  # what the report prints
    folded_logits = teacher.with_network(folded(teacher.network))((image - mean) / std).logits
    torch.testing.assert_close(folded_logits, found, rtol=1e-4, atol=1e-4)
    assert teacher.network is not teacher.with_network(network).network
    other = {name: value + 0.1 for name, value in network.state_dict().items()}
    save_checkpoint(tmp_path / "a.safetensors", pack("model", other), meta)
    with pytest.raises(UserError, match="was started with another teacher"):
        prepare(parsed(tmp_path, *photos, weights, classes, "--resume"))


def test_a_teacher_that_cannot_be_exported_is_no_end(tmp_path, photos, monkeypatch, capsys):
    """A checkpoint's network is not that of `--teacher.arch`."""
    network = build_network("edge/8", 3, 3)
    meta = {
        "model": {"arch": "edge/8", "depths": [1, 1, 1, 1], "aux": True},
        "channels": ["R", "G", "B"],
        "classes": ["vehicle", "road", "person"],
        "mean": [1.0, 2.0, 3.0],
        "std": [4.0, 5.0, 6.0],
    }
    save_checkpoint(tmp_path / "a.safetensors", pack("model", network.state_dict()), meta)
    classes = write_map(tmp_path, {})
    context = prepare(parsed(tmp_path, *photos, f"--teacher.weights={tmp_path / 'a.safetensors'}", classes))

    def fails(*_):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(pipeline, "export", fails)
    teacher = ready_teacher(context.config, context.splits, context.stats)
    assert not pipeline.export_teacher(context, teacher)
    assert "cannot be exported to ONNX" in capsys.readouterr().err
