"""Networks of the user's own that teach as they are."""

import sys

import pytest
import torch

from deploy.errors import UserError
from distill.distillation.ready_made import name_of_teacher, ready_teacher
from distill.pipeline.prepare import prepare
from distill.tasks.registry import open_splits
from distill.training.checkpoint import pack, save_checkpoint
from student.zoo import build_network
from tests.distill.pipeline.ready_teachers import first_image, parsed, write_map
from tests.teacher.external.own_module import MODULE

NORMALIZATION = ("--teacher.mean", "1", "2", "--teacher.std", "3", "4")
NAMES = ("sea", "lake", "field")


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The name of a network of three classes, and the network itself, with other weights than a new one has."""
    loads = """
import torch


def loaded(in_channels, num_outputs):
    network = Net(in_channels, num_outputs)
    network.load_state_dict(torch.load("net.pth"))
    return network
"""
    (tmp_path / "own_ready.py").write_text(MODULE + loads)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "own_ready:Net", build_network("own_ready:Net", 2, 3).eval()
    del sys.modules["own_ready"]


def classes_of(tmp_path):
    return write_map(tmp_path, {"sea": "water", "lake": "water", "field": "land"})


def scores(config):
    """What the teacher of a run gives for an image, and that image in raw units."""
    context = prepare(config)
    image, mean, std = first_image(context)
    return ready_teacher(context.config, context.splits, context.stats)((image - mean) / std).logits, image


def expected(network, image, mean, std):
    pixels = (image - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    sea, lake, field = network(pixels).logits.unbind(1)
    return torch.stack([field, torch.logaddexp(sea, lake)], 1)  # land and water


@torch.no_grad()
def test_a_checkpoint_of_other_classes_has_its_normalization(tmp_path, own):
    arch, network = own
    meta = {
        "model": {"arch": arch},
        "channels": ["VV", "VH"],
        "classes": NAMES,
        "mean": [5.0, 6],
        "std": [7.0, 8],
    }
    save_checkpoint(tmp_path / "net.safetensors", pack("model", network.state_dict()), meta)
    weights = f"--teacher.weights={tmp_path / 'net.safetensors'}"
    config = parsed(tmp_path, f"--teacher.arch={arch}", weights, classes_of(tmp_path))
    found, image = scores(config)
    torch.testing.assert_close(found, expected(network, image, [5.0, 6], [7.0, 8]), rtol=1e-4, atol=1e-4)
    assert name_of_teacher(config) == "own_ready:Net, net.safetensors"


@pytest.mark.parametrize("name", ["Net", "loaded"])
@torch.no_grad()
def test_its_own_tensors_from_a_file_or_loaded_by_itself(tmp_path, own, name):
    torch.save(own[1].network.state_dict(), tmp_path / "net.pth")
    weights = () if name == "loaded" else (f"--teacher.weights={tmp_path / 'net.pth'}",)
    arguments = (f"--teacher.arch=own_ready:{name}", *weights, classes_of(tmp_path), *NORMALIZATION)
    config = parsed(tmp_path, *arguments)
    found, image = scores(config)
    torch.testing.assert_close(found, expected(own[1], image, [1.0, 2], [3.0, 4]), rtol=1e-4, atol=1e-4)
    file = "" if name == "loaded" else ", net.pth"
    assert ready_teacher(config, open_splits(config.data)).source == f"own_ready:{name}{file}"


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("Net", (), "own_ready:Net: does not say how its images are normalized; give --teacher.mean and"),
        ("Probabilities", NORMALIZATION, "own_ready:Probabilities: returns probabilities"),
    ],
)
def test_refused(tmp_path, own, name, arguments, words):
    config = parsed(tmp_path, f"--teacher.arch=own_ready:{name}", classes_of(tmp_path), *arguments)
    with pytest.raises(UserError, match=words):
        prepare(config)
    assert not (tmp_path / "run" / "config.json").exists()


def test_without_steps_a_line_says_what_to_give(tmp_path, own):
    with pytest.raises(
        UserError, match=r"or --teacher\.mean and --teacher\.std of one that loads its own weights"
    ):
        prepare(parsed(tmp_path, f"--teacher.arch={own[0]}", "--teacher-train.steps=0"))
