"""What `inspect` recommends follows from what it measures, and the command that it prints runs."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy.bundle.manifest import ClassInfo
from deploy.files.images import write_png
from deploy.inference.tiling import windows
from distill import cli
from distill.config import AugmentConfig, DataConfig, ModelConfig, RunConfig, TrainConfig
from distill.data.sample import make_sample
from distill.data.splits import Splits
from distill.inspect_data.recommend import (
    Seen,
    advise,
    command_of,
    imbalance_advice,
    size_advice,
    split_advice,
)
from distill.inspect_data.survey import Survey
from distill.inspect_data.twins import Thumbnails, twin_share
from distill.pipeline.prepare import open_checked, start_accelerator
from distill.run import parse
from tests.distill.inspect_data.test_command import Listed

TRAIN = TrainConfig(steps=2, batch_size=2)
CONFIG = RunConfig(
    DataConfig("folder", size=(64, 64)),
    ModelConfig("edge/4"),
    ModelConfig("edge/4"),
    TRAIN,
    TRAIN,
    AugmentConfig(crop=(48, 48)),
)


def label_of(shape, block=16, rare=0):
    """Blocks of classes 0 and 1, and a dot of class 2 of `rare` pixels on each side."""
    rows, columns = np.indices(shape) // block
    label = ((rows + columns) % 2).astype(np.uint8)
    label[:rare, :rare] = 2
    return label


def seen(labels, classes=2, images=None, val=None, optical=True):
    """What is found in samples with these labels."""
    rng = np.random.default_rng(0)
    kind = np.uint8 if optical else np.float32

    def read(label, index):
        image = rng.integers(0, 255, (*label.shape, 1)) if images is None else images[index]
        return make_sample(image.astype(kind), label, id=f"{index}", num_classes=classes)

    train = [read(label, index) for index, label in enumerate(labels)]
    names = tuple(ClassInfo(name, (0, 0, 0)) for name in ("land", "water", "ship")[:classes])
    readers = Listed(train), Listed(train if val is None else val)
    splits = Splits("made", names, ("gray",), optical, *readers, readers[1])
    survey = Survey(splits)
    list(survey.rows())
    return Seen(splits, survey.splits, survey.thumbnails)


def fields_of(advice):
    return [word for one in advice for word in one.fields]


class TestSize:
    def test_wide_images_get_a_wide_input(self):
        found = list(size_advice(CONFIG, seen([label_of((96, 200))])))
        assert fields_of(found) == [
            *("--data.size", "48", "96", "--data.resize", "stretch"),
            *("--augment.crop", "32", "64"),
        ]
        assert "64×64 would make all in them 2.1 times narrower" in found[0].text

    @pytest.mark.parametrize("shape", [(64, 64), (100, 100)])
    def test_a_size_in_the_images_proportions_stays(self, shape):
        assert fields_of(size_advice(CONFIG, seen([label_of(shape)])))[1:3] == ["64", "64"]

    def test_small_structures_get_a_larger_input(self):
        label = label_of((256, 256), block=64)
        label[:, ::32] = 1 - label[:, ::32]  # lines of one pixel
        small, large = label_of((256, 256), block=64), label
        assert fields_of(size_advice(CONFIG, seen([small])))[1:3] == ["64", "64"]
        label = label_of((128, 128), block=3)
        assert fields_of(size_advice(CONFIG, seen([label])))[1:3] == ["128", "128"]
        assert fields_of(size_advice(CONFIG, seen([large])))[1:3] == ["64", "64"]  # few pixels of each class

    def test_structures_that_no_size_keeps_are_tiled(self):
        found = list(size_advice(CONFIG, seen([label_of((512, 512), block=2)])))
        assert fields_of(found) == [
            *("--data.size", "64", "64", "--data.resize", "tile"),
            *("--augment.crop", "64", "64"),
        ]
        count = len(windows(512, 512, (64, 64)))  # as the device places them, with an overlap
        assert count == 225
        assert f"An image is {count} windows" in found[0].text

    def test_images_of_many_proportions_are_tiled(self):
        found = list(size_advice(CONFIG, seen([label_of((96, 96)), label_of((96, 300))])))
        assert "tile" in fields_of(found)
        assert "proportions of images differ by 2.4×" in found[0].text


class TestImbalance:
    def test_two_classes(self):
        (found,) = imbalance_advice(seen([np.pad(np.ones((4, 16), np.uint8), ((0, 28), (0, 0)))]).surveys[0])
        assert found.fields == ("--loss.task", "ce + dice")
        assert found.text.startswith("water has 12.50% of the pixels, land 88%")

    def test_many_classes_and_few_images(self):
        labels = [label_of((64, 64), rare=3), *[label_of((64, 64))] * 9]
        weights, balance = imbalance_advice(seen(labels, classes=3).surveys[0])
        assert weights.fields == ("--loss.class-weights", "log")
        assert balance.fields == ("--augment.balance", "0.5")
        assert balance.text.startswith("ship is in 10% of the images")

    def test_balanced(self):
        (found,) = imbalance_advice(seen([label_of((64, 64))]).surveys[0])
        assert found.fields == ()


def test_splits_that_say_little_are_told():
    label = label_of((64, 64))
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 200, (64, 64, 1)) for _ in range(4)]
    near = make_sample((images[2] + 1).astype(np.uint8), np.zeros((64, 64), np.uint8), id="v", num_classes=2)
    found = [one.text for one in split_advice(seen([label] * 4, images=images, val=[near]))]
    assert found[0].startswith("val has 1 images")
    assert found[1].startswith("val has no pixel of water")
    assert found[2].startswith("100% of the images of val look like one of train")


def test_other_images_are_no_twins():
    rng = np.random.default_rng(0)
    pictures = [Thumbnails(), Thumbnails()]
    for one in pictures:
        for _ in range(10):
            one.update(rng.random((3, 40, 50)).astype(np.float32))
        one.update(np.zeros((3, 40, 50), np.float32))  # without contrast
        one.update(np.full((3, 40, 50), np.nan, np.float32))
    first, second = (one.result() for one in pictures)
    assert len(first) == 10
    assert twin_share(first, second) == 0
    assert twin_share(first, first) == 1
    assert twin_share(first[:0], second) == 0


def test_a_command_has_the_recommended_fields_once():
    typed = ["folder-cpu", "--data.root", "my data", "--data.size", "64", "64", "--seed=3"]
    advice = list(size_advice(CONFIG, seen([label_of((96, 200))])))
    command = command_of(typed, advice)
    assert command[:7] == [
        "edgedistill",
        "run",
        "folder-cpu",
        "--data.root",
        "my data",
        "--seed=3",
        "--data.size",
    ]
    assert command.count("--data.size") == 1
    config = parse([*command[2:5], *command[5:]])
    assert config.data.size == (48, 96)
    assert config.seed == 3


def test_all_recommendations_can_be_parsed():
    labels = [label_of((64, 128), rare=2), *[label_of((64, 128))] * 9]
    found = advise(replace(CONFIG, data=DataConfig("folder", size=(64, 64))), seen(labels, classes=3))
    assert {one.topic for one in found} == {"size", "crop", "stride", "weights", "balance", "split"}
    parse(command_of(["folder-cpu"], found)[2:])


@pytest.fixture
def wide(tmp_path):
    """A folder of wide images with a rare class."""
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    for index in range(24):
        label = np.zeros((40, 96), np.uint8)
        label[10:20, 10:20] = 1
        image = 80 * label[..., None] + rng.integers(0, 99, (40, 96, 3))
        write_png(tmp_path / "data" / "images" / f"{index}.png", image.astype(np.uint8))
        write_png(tmp_path / "data" / "masks" / f"{index}.png", label)
    return tmp_path


SHORT = (
    *("--teacher.arch", "edge/4", "--student.arch", "edge/4", "--precision", "fp32"),
    *("--student-train.steps", "2", "--teacher-train.steps", "2", "--no-page", "--int8.no-enabled"),
    *("--student-train.batch-size", "2", "--teacher-train.batch-size", "2", "--distill.start", "own"),
)


def fields_for(folder: Path) -> list[str]:
    return ["--data.root", f"{folder}/data", "--data.size", "48", "48", "--out", f"{folder}/run", *SHORT]


def test_the_printed_command_runs(wide, capsys):
    fields = fields_for(wide)
    assert cli.main(["inspect", "folder-cpu", *fields]) == 0
    printed = capsys.readouterr().out.splitlines()
    words = shlex.split(printed[printed.index("to paste:") + 1])
    assert words[:3] == ["edgedistill", "run", "folder-cpu"]
    assert "ce + dice" in words
    assert words[words.index("--data.size") :][1:3] == ["32", "80"]
    assert json.loads((wide / "run" / "inspect" / "inspect.json").read_text())["command"] == words
    assert cli.main(words[1:]) == 0
    assert (wide / "run" / "student.bundle" / "manifest.json").exists()
    config = json.loads((wide / "run" / "config.json").read_text())
    assert config["data.size"] == [32, 80]
    assert config["loss.task"] == "ce + dice"
    assert "distorts" not in capsys.readouterr().err


def test_a_run_warns_of_distorted_images(wide):
    fields = fields_for(wide)
    lines = open_checked(parse(["folder-cpu", *fields]), start_accelerator("fp32")).lines
    assert (
        "warning: --data.size 48 48 distorts images of 40×96: all in them gets 2.4 times narrower" in lines[0]
    )


def test_json_alone(wide, capsys):
    fields = ["--data.root", str(wide / "data"), "--out", str(wide / "run"), "--json"]
    assert cli.main(["inspect", "folder-cpu", *fields]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["topic"] for one in found["recommended"]} >= {"size", "loss"}
    assert "--json" not in found["command"]
