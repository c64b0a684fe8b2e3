"""What `edgedistill inspect` says of the structures of labels."""

import json

import msgspec
import pytest

from distill import cli
from distill.data.structures import Ceiling, ClassStructures, Structures, measure_structures
from distill.inspect_data.tables import structure_table
from distill.run import parse
from distill.tasks.registry import open_splits


def test_structures_are_those_that_a_run_chooses_by(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    fields = ["--data.size", "40", "56", "--data.synthetic-counts", "3", "2", "2", "--out", str(tmp_path)]
    assert cli.main(["inspect", "smoke", *fields]) == 0
    printed = capsys.readouterr().out
    assert "structures of 3 training masks at 40×56" in printed
    found = json.loads((tmp_path / "inspect" / "inspect.json").read_text())["structures"]
    config = parse(["smoke", *fields])
    data = open_splits(config.data)
    own = measure_structures(data.train, [info.name for info in data.classes], config.data)
    assert own is not None
    assert found == json.loads(msgspec.json.encode(own))
    assert f"{100 * own.ceilings[1].miou:.1f}" in printed


def test_a_table_of_structures():
    classes = (
        ClassStructures("pole", 12, (1, 4, 30), (1.5, 1.5, 3.5), 0.655),
        ClassStructures("train", 0, None, None, None),
    )
    found = Structures(3, classes, (Ceiling(4, 0.6, 0.7, (0.6, None)), Ceiling(8, 0.3, 0.4, (0.3, None))))
    lines = [line.split() for line in structure_table(found).splitlines()]
    assert lines[2] == ["pole", "12", "4", "(1–30)", "1.5", "(1.5–3.5)", "65.5", "60.0", "30.0"]
    assert lines[3] == ["train", "0", "–", "–", "–", "–", "–"]
    assert lines[4] == ["mean", "IoU", "60.0", "30.0"]
    assert lines[5] == ["boundary", "F1", "70.0", "40.0"]
