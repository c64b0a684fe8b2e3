"""`benchmarks/resolution.py`: a student with and without finer outputs, in the same time."""

import json

import pytest

from benchmarks.resolution import main
from deploy.errors import UserError

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
