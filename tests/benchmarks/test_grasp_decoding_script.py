"""benchmarks/grasp_decoding.py: both decoders find the same peaks, and the report lists every run."""

import json

import numpy as np
import pytest

from benchmarks.grasp_decoding import example, main, scikit_image
from deploy.errors import UserError
from deploy.tasks.grasp.decode import decode


def test_table_and_report(tmp_path, capsys):
    path = tmp_path / "report.json"
    assert main(["--size", "64", "--runs", "3", "--json", str(path)]) == 0
    report = json.loads(path.read_text())
    assert {name: len(times) for name, times in report["seconds"].items()} == {
        "this project": 3,
        "scikit-image": 3,
    }
    assert report["machine"]["usable_cores"]
    out = capsys.readouterr().out
    assert "this project" in out
    assert "scikit-image" in out


def test_both_find_the_best_grasp_at_about_the_same_place():
    maps = example(200)
    ours, _ = decode(maps, count=1)
    x, y, *_ = scikit_image(1)(maps)[0]
    assert np.abs(ours[0, :2] - (x, y)).max() < 12  # ours moves to the center of a plateau


def test_usage():
    with pytest.raises(UserError, match="--size"):
        main(["--size", "8"])
