"""Networks of other packages, and a user's own, train, teach and learn in the pipeline."""

import json
import sys

import pytest

from deploy.errors import UserError
from distill import run as script
from distill.pipeline.networks import new_network
from distill.pipeline.pipeline import export_teacher
from distill.pipeline.prepare import prepare
from distill.pipeline.stages import train_all
from distill.training.checkpoint import pack, save_checkpoint
from distill.training.checkpoint_metadata import checkpoint_metadata, network_from
from tests.teacher.external.hf_folders import saved
from tests.teacher.external.own_module import MODULE

STUDENT = ("--student.arch=pspnet/test_efficientnet", "--student.head-channels=16")
SMALL = ("smoke", "--precision=fp32", "--no-baseline")
FORTY = ("--data.size=40", "40", "--augment.crop=40", "40")
SMP = "smp/FPN/tu-mobilenetv3_small_050"
TEACHERS = {
    "pspnet/test_vit": "kl(t=2) + feature(layer3)",
    SMP: "kl(t=2) + feature(layer4)",
    "torchvision/lraspp_mobilenet_v3_large": "kl(t=2) + feature(layer3)",
    "hf/segformer": "cwd(t=4) + feature(layer4)",
    "hf/mask2former": "kl(t=2) + feature(layer3)",
    "hf/eomt": "kl(t=2)",
    "hf/dinov2": "kl(t=2) + feature(layer4)",
    "own": "kl(t=2)",
}
"""Losses that each of them teaches by."""


@pytest.fixture
def arch_of(tmp_path, monkeypatch):
    """A function from a name in `TEACHERS` to an architecture that exists."""

    def find(name):
        family, _, kind = name.partition("/")
        if family == "hf":
            saved(tmp_path / kind, kind)
            return f"hf/{tmp_path / kind}"
        if family == "own":
            (tmp_path / "own_teacher.py").write_text(MODULE)
            monkeypatch.chdir(tmp_path)
            monkeypatch.setattr(sys, "path", [*sys.path])
            return f"own_teacher:{kind or 'Mapping'}"
        return name

    yield find
    sys.modules.pop("own_teacher", None)


def parsed(tmp_path, *arguments):
    return script.parse([*SMALL, *map(str, arguments), f"--out={tmp_path / 'run'}"])


def distilled(config):
    """Train teacher and student for two steps each; the logged values of the student, and both networks."""
    trained = train_all(prepare(config))
    lines = (config.out / "student" / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if "loss" in line], trained


@pytest.mark.parametrize(
    ("name", "views"), [*((name, 0) for name in TEACHERS), ("hf/mask2former", 1), ("own", 1)]
)
def test_every_kind_of_teacher_teaches(tmp_path, arch_of, name, views):
    arguments = (*STUDENT, f"--teacher.arch={arch_of(name)}", f"--distill.loss={TEACHERS[name]}")
    lines, trained = distilled(parsed(tmp_path, *arguments, f"--distill.views={views}"))
    assert [line["step"] for line in lines] == [1, 2]
    assert all(line["kd"] > 0 for line in lines)
    assert trained.teacher.seconds > 0


@pytest.mark.parametrize("name", ["pspnet/test_vit", SMP, "hf/segformer", "own"])
def test_every_kind_of_student_learns(tmp_path, arch_of, name):
    arguments = ("--teacher.arch=pspnet/test_efficientnet", "--teacher.head-channels=16")
    lines, trained = distilled(parsed(tmp_path, *arguments, f"--student.arch={arch_of(name)}"))
    assert [line["step"] for line in lines] == [1, 2]
    again = train_all(
        prepare(parsed(tmp_path, *arguments, f"--student.arch={trained.student.arch}", "--resume"))
    )
    ours, theirs = (one.student.network.state_dict() for one in (trained, again))
    assert all(value.equal(theirs[key]) for key, value in ours.items())


def test_a_checkpoint_never_makes_a_run_import_code(tmp_path, arch_of):
    own = parsed(tmp_path, *STUDENT, f"--teacher.arch={arch_of('own')}")
    context = prepare(own)
    network = new_network(own, own.teacher, context.splits, context.task)
    meta = checkpoint_metadata(own.teacher, True, context.data)
    save_checkpoint(tmp_path / "best.safetensors", pack("model", network.state_dict()), meta)
    with pytest.raises(
        UserError, match=r"best\.safetensors: is of a network of your own, own_teacher:Mapping"
    ):
        network_from(tmp_path / "best.safetensors", context.data)


def test_a_teacher_that_cannot_be_exported_costs_its_bundle_alone(tmp_path, arch_of, capsys):
    context = prepare(parsed(tmp_path, *STUDENT, f"--teacher.arch={arch_of('hf/eomt')}"))
    network = new_network(context.config, context.config.teacher, context.splits, context.task)
    assert not export_teacher(context, network.eval())
    assert "teacher: cannot be exported to ONNX (" in capsys.readouterr().err
    assert not (tmp_path / "run" / "teacher.bundle").exists()


def test_a_feature_that_a_teacher_lacks_is_refused_with_those_that_it_has(tmp_path, arch_of):
    arguments = (*STUDENT, f"--teacher.arch={arch_of('own')}", "--distill.loss=feature(layer4)")
    with pytest.raises(UserError, match="the teacher has no feature 'layer4'; it has body"):
        prepare(parsed(tmp_path, *arguments))
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("TupleInTraining", "returns in training mode a tuple"),
        ("Halves", r"fails on images 1×2×40×40: RuntimeError"),
    ],
)
def test_own_networks_are_tried_in_training_and_at_the_sizes_of_the_run(tmp_path, arch_of, name, words):
    with pytest.raises(UserError, match=words):
        prepare(parsed(tmp_path, *STUDENT, *FORTY, f"--teacher.arch={arch_of(f'own/{name}')}"))
    assert not (tmp_path / "run" / "config.json").exists()


def test_an_own_network_of_one_size_that_fits_the_run_is_taken(tmp_path, arch_of):
    config = parsed(tmp_path, *STUDENT, *FORTY, f"--teacher.arch={arch_of('own/OnlySmall')}")
    assert prepare(config).config.builds_teacher
