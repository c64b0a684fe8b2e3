"""The command line: what `python distill/run.py` says of presets, and of mistakes."""

import os
import re

import pytest

from distill import run as script
from distill.tasks.registry import PRESETS
from tests.distill.tiny import run_script


def test_lists_presets():
    result = run_script()
    assert result.returncode == 2
    assert all(name in result.stdout for name in PRESETS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["quik"], r"unknown preset 'quik' \(did you mean quick\?\); presets: "),
        (
            ["quick", "--student-train.step", "9"],
            r"unknown field --student-train\.step \(did you mean student-train\.steps\?\); quick --help lists all",
        ),
        (["folder"], r"folder.*--data\.root"),
        (["camvid-cpu", "--data.root", "/nowhere"], r"/nowhere"),
        (["smoke", "--student.arch", "pspnet/nope", "--out", "{tmp}"], r"timm has no model 'nope'"),
        (
            ["smoke", "--teacher.weights", "/nowhere.pth", "--out", "{tmp}"],
            r"/nowhere\.pth: no such weights file",
        ),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(arguments, words, tmp_path):
    arguments = [argument.format(tmp=tmp_path / "run") for argument in arguments]
    environment = {k: v for k, v in os.environ.items() if k != "EDGEDISTILL_DATA"}
    result = run_script(*arguments, env=environment)
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.returncode == 2, result.stderr
    assert len(errors) == 1
    assert re.search(words, errors[0])
    assert "Traceback" not in result.stderr


def test_every_field_of_every_preset_parses():
    for name, make in PRESETS.items():
        assert script.parse([name]) == make()


def test_overrides_reach_the_configuration():
    config = script.parse(["quick", "--data.size", "64", "48", "--student_train.lr=0.5", "--no-baseline"])
    assert config.data.size == (64, 48)
    assert config.student_train.lr == 0.5
    assert not config.baseline
