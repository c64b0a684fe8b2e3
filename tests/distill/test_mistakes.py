"""What people type wrong gives one helpful line, exit code 2, and no traceback."""

import json
from pathlib import Path

import numpy as np
import pytest

from deploy.errors import exit_with_one_line
from deploy.files.images import write_png
from distill import cli
from distill.data.datasets.folder import read_split
from tests.deploy.tiny import make_bundle, make_image


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with a bundle, an image, and data whose masks hold 0 and 255; the working folder."""
    make_bundle(tmp_path / "bundle")
    write_png(tmp_path / "photo.png", make_image())
    (tmp_path / "notes").mkdir()
    for index in range(20):
        write_png(tmp_path / "data" / "images" / f"{index}.png", make_image(seed=index))
        write_png(tmp_path / "data" / "masks" / f"{index}.png", 255 * np.eye(32, 48, dtype=np.uint8))
    held = tmp_path / "held"
    held.mkdir()
    (held / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEDISTILL_DATA", raising=False)
    return tmp_path


MISTAKES = [
    ("train folder", "unknown command 'train' (did you mean run?)"),
    ("val bundle", "unknown command 'val' (did you mean evaluate?)"),
    ("predcit bundle photo.png", "unknown command 'predcit' (did you mean predict?)"),
    ("run", None),
    ("run foldr", "unknown preset 'foldr' (did you mean folder?)"),
    ("run quick --student.arhc unet", "unknown field --student.arhc (did you mean student.arch?)"),
    ("run quick --epochs 3", "unknown field --epochs"),
    ("run quick --data.size 4 4", "--data.size"),
    ("run quick --student-train.steps -1", "--student-train.steps -1"),
    ("run quick --student-train.lr 0", "--student-train.lr 0"),
    ("run quick --out held", "held already holds a run; add --resume"),
    ("run folder-cpu", "where is folder? Give --data.root FOLDER"),
    ("run folder-cpu --data.root nowhere", "--data.root nowhere: no such folder"),
    ("run folder-cpu --data.root notes", "notes"),
    ("run folder-cpu --data.root data", 'such as [{"name": "background", "value": 0}'),
    ("run camvid-cpu --data.root notes", "notes"),
    ("run quick --student.arch edge-smal", "unknown network 'edge-smal'"),
    ("run quick --distill.loss kll", "kll"),
    ("run quick --loss.task dicee", "dicee"),
    ("run quick --precision fp16", "--precision fp16 needs a GPU"),
    ("run quick --student.weights missing.safetensors", "missing.safetensors: no such weights file"),
    ("run quick --student.max-ms -3", "--student.max-ms -3"),
    ("inspect folder-cpu --data.root nowhere", "nowhere: no such folder"),
    ("predict nowhere photo.png", "nowhere: no such folder"),
    ("predict bundle nowhere.png", "nowhere.png: no such file"),
    ("predict notes photo.png", "notes: holds neither manifest.json nor student.bundle"),
    ("predict bundle notes", "notes: holds no image"),
    ("predict bundle photo.png --out .", "--out .: is the folder of the images"),
    ("predict bundle photo.png --backend cuda", "cuda"),
    ("predict bundle photo.png --precision int4", "int4"),
    ("predict bundle photo.png --save maskk", "--save maskk: no such format (did you mean mask?)"),
    ("build notes", "notes"),
    ("build bundle --precision int8 --data notes", "notes"),
    ("verify notes", "notes"),
    ("info nowhere", "nowhere"),
    ("evaluate bundle nowhere", "nowhere: neither a folder nor a preset"),
    ("evaluate bundle data", "the masks hold the ids 0 and 255, but 255 is void"),
    ("compare bundle bundle", "is given twice"),
    ("report notes", "notes: holds no report.json"),
    ("threshold bundle", "has 3 classes, a threshold is for two"),
    ("lint nowhere.onnx", "nowhere.onnx"),
    ("masks data out --map 255", "255"),
    ("tiles nowhere out", "nowhere"),
    ("students --ms 3x", "3x"),
    ("convert nowhere.pth out.safetensors", "nowhere.pth"),
    ("serve nowhere", "nowhere: no such folder"),
    ("serve bundle --port 99999", "--port 99999: choose one of 1 to 65535"),
    ("serve bundle --max-mb nan", "--max-mb nan: must be more than 0"),
    ("card bundle --out .", ".: is a folder that exists; give a name"),
    ("card bundle --out notes", "notes: is a folder; give the name of a file"),
    ("keygen .", ".: is a folder that exists; give a name"),
    (
        "predict bundle photo.png --out held/config.json",
        "held/config.json: is a file, but a folder is needed there",
    ),
    (
        "predict bundle photo.png --out held/config.json/x",
        "held/config.json: is a file, but a folder is needed there",
    ),
    ("triton bundle held/config.json", "held/config.json: is a file, but a folder is needed there"),
    ("triton bundle models --precision int8", "has no int8 model; it has fp32"),
]


def test_there_are_more_than_thirty():
    assert len(dict(MISTAKES)) == len(MISTAKES) > 30


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(("command", "words"), MISTAKES)
def test_one_helpful_line(command, words, capsys):
    arguments = command.split()
    if arguments[0] == "run" and len(arguments) > 1 and "--precision" not in arguments:
        arguments += [
            "--precision",
            "fp32",
        ]  # accelerate keeps the first precision of a process, here for other tests
    with pytest.raises(SystemExit) as ended:
        exit_with_one_line(lambda: cli.main(arguments))
    assert ended.value.code == 2
    printed = capsys.readouterr()
    if words is None:  # the usage
        assert "usage" in printed.out
        return
    lines = printed.err.strip().splitlines()
    assert "Traceback" not in printed.err
    assert words in lines[-1]
    assert "error: " in lines[-1]
    others = [line for line in lines[:-1] if not line.startswith(("usage:", " ", "warning:", "data:"))]
    assert [line for line in others if "…" not in line] == []  # only what tells that something goes on


def test_the_example_in_the_message_is_a_classes_file(place, capsys):
    with pytest.raises(SystemExit):
        exit_with_one_line(
            lambda: cli.main(["run", "folder-cpu", "--data.root", "data", "--precision", "fp32"])
        )
    message = capsys.readouterr().err
    text = message[message.index("[") : message.index("]") + 1]
    (place / "data" / "classes.json").write_text(text)
    classes = read_split(place / "data", "train")[1]
    assert [one.name for one in classes] == ["background", "foreground"]
    assert [one["value"] for one in json.loads(text)] == [0, 255]
