"""Commands that print a result print it as JSON with `--json`, and nothing else on stdout."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from deploy.files.images import write_png
from deploy.files.json_output import print_json, words_to_stderr
from distill import cli
from tests.conftest import ROOT
from tests.deploy.tiny import make_bundle, make_image

TRAINING = pytest.mark.skipif(find_spec("torch") is None, reason="a command of training")


@pytest.fixture
def place(tmp_path, monkeypatch):
    make_bundle(tmp_path / "bundle")
    for folder in (".", "photos", "src/train/images", "src/val/images"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        write_png(tmp_path / folder / "a.png", make_image())
    for split in ("train", "val"):
        (tmp_path / "src" / split / "masks").mkdir()
        write_png(tmp_path / "src" / split / "masks" / "a.png", np.eye(32, 48, dtype=np.uint8))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("info bundle", {"bundle", "manifest", "engines"}),
        ("verify bundle", {"bundle", "passed", "checks"}),
        ("predict bundle a.png", {"engine", "folder", "images", "failed", "done before", "seconds"}),
        ("build bundle --precision fp32 --backend onnxruntime", {"bundle", "precision", "receipt"}),
        ("measure bundle --seconds 0.01", {"rows", "machine"}),
        ("lint bundle", None),
        ("presets", {"quick", "folder"}),
        ("card bundle", {"file", "text"}),
        ("card bundle --out card.md", {"file", "text"}),
        ("triton bundle models", {"folder", "model_repository"}),
        ("keygen key.pem", {"key", "private", "public"}),
        ("label bundle photos --backend onnxruntime", {"out", "images", "labeled", "masks", "ranking"}),
        pytest.param("masks src dst --map 255=1", {"out", "masks"}, marks=TRAINING),
        pytest.param("tiles src dst --size 16", {"list", "splits"}, marks=TRAINING),
    ],
)
def test_commands(command, names, capsys):
    assert cli.main([*command.split(), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert names is None or names <= set(found)


@pytest.mark.usefixtures("place")
def test_signing(capsys):
    pytest.importorskip("cryptography", reason="pip install 'edgedistill[sign]'")
    cli.main(["keygen", "key.pem", "--json"])
    key = json.loads(capsys.readouterr().out)
    assert cli.main(["sign", "bundle", "--key", key["private"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"bundle": "bundle", "key": key["key"], "dropped": []}
    assert cli.main(["verify", "bundle", "--key", key["public"]]) == 0


@pytest.mark.usefixtures("place")
def test_what_a_prediction_wrote(capsys):
    cli.main(["predict", "bundle", "a.png", "--json"])
    (image,) = json.loads(capsys.readouterr().out)["images"]
    assert image["image"] == "a.png"
    assert [name.rpartition("/")[2] for name in image["files"]] == ["a_mask.png", "a_overlay.png"]


def test_words_go_to_stderr_only_if_asked(capsys):
    for asked in (True, False):
        with words_to_stderr(asked):
            print("words")
        print_json({"asked": asked})
        printed = capsys.readouterr()
        assert (printed.err == "words\n") == asked
        assert json.loads(printed.out.removeprefix("words\n")) == {"asked": asked}
    assert sys.stdout is not sys.stderr


def test_json_is_json_whatever_the_stream_escapes(tmp_path):
    name = "stra\u00dfe \u00ad\x7f\x9f \U0001f600"
    script = f"from deploy.terminal import prepare_streams; prepare_streams(); print_json([{name!r}])"
    command = [sys.executable, "-c", f"from deploy.files.json_output import print_json; {script}"]
    for encoding in ("ascii", "utf-8"):
        environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, env=environment, check=True, timeout=60)
        assert json.loads(done.stdout) == [name]


def test_there_is_no_nan_in_json():
    with pytest.raises(ValueError, match="not JSON compliant"):
        print_json({"x": float("nan")})
