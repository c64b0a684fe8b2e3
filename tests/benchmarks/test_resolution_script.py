"""`benchmarks/resolution.py`: a student with and without finer outputs, in the same time."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import resolution_training
from benchmarks.resolution import main
from deploy.errors import UserError
from deploy.files.atomic import write_json

TINY = (
    "smoke", "--no-peer", "--data.size", "32", "32", "--augment.crop", "32", "32", "--student.arch", "edge/4",
    "--student.output-stride", "8", "--student.head-channels", "512",
)  # fmt: skip


def test_all_forms_are_trained_and_scored_once(tmp_path, capsys):
    report = tmp_path / "report.json"
    arguments = [*TINY, "--minutes", "0.002", "--out", str(tmp_path / "run"), "--json", str(report)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "boundary F1" in printed
    found = json.loads(report.read_text())
    assert [(one["name"], one["stride"]) for one in found["results"]] == [
        ("edge/4", 8),
        ("edge/4, detail", 4),
        ("edge/4, output stride 2", 2),
    ]
    assert all(one["steps"] >= 1 and 0 <= one["miou"] <= 1 for one in found["results"])
    assert list(found["results"][0]["iou"]) == [one["name"] for one in found["structures"]["classes"]]
    before = (tmp_path / "run" / "edge-4.json").stat().st_mtime_ns
    assert main(arguments) == 0
    assert (tmp_path / "run" / "edge-4.json").stat().st_mtime_ns == before
    with pytest.raises(
        UserError, match=r"edge-4\.json: has \d+ steps, but the budget allows \d+; use another"
    ):
        main([*arguments, "--minutes", "0.2"])


def test_networks_added_later_leave_the_costs_of_the_others(tmp_path, monkeypatch):
    write_json(tmp_path / "costs.json", {"edge": 2.0})
    monkeypatch.setattr(resolution_training, "_networks", lambda *_: {"edge": None, "peer": None})
    monkeypatch.setattr(
        resolution_training, "_clock", lambda _, name, __: lambda: 9.0 if name == "edge" else 18.0
    )
    monkeypatch.setattr(resolution_training, "_trained", lambda _, name, __, steps: (name, steps))
    context = SimpleNamespace(config=SimpleNamespace(out=tmp_path))
    assert resolution_training.train_all(context, 40.0, "peer") == [("edge", 20), ("peer", 10)]
    assert json.loads((tmp_path / "costs.json").read_text()) == {"edge": 2.0, "peer": 4.0}


def test_a_run_of_the_preset_has_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = []

    def opened(config):
        asked.append(config.out)
        raise UserError("opened")

    monkeypatch.setattr(resolution_training, "opened", opened)
    with pytest.raises(UserError, match="opened"):
        main([*TINY, "--minutes", "1"])
    assert asked == [Path("runs/resolution-smoke")]


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match="--minutes 0: must be above 0"):
        main([*TINY, "--minutes", "0"])
    with pytest.raises(UserError, match="labels are no classes"):
        main(
            [
                "quick-grasp",
                "--minutes",
                "1",
                "--data.synthetic-counts",
                "8",
                "1",
                "1",
                "--out",
                str(tmp_path / "g"),
            ]
        )
