"""benchmarks/students.py on two small students and a peer: a table, and JSON with every backend and precision."""

import json

import pytest

from benchmarks.students import main
from deploy.errors import UserError
from student.edge import EdgeNet, fold_branches
from student.zoo import count_macs, count_parameters

FAST = ["--size", "64", "--classes", "3", "--runs", "2"]


def test_table_and_json(tmp_path, capsys):
    main(["edge/4", "edge/4:detail=True", *FAST, "--json", str(tmp_path / "students.json")])
    printed = capsys.readouterr().out
    assert "edge/4:detail=True" in printed
    written = json.loads((tmp_path / "students.json").read_text())
    assert written["size"] == 64
    first, second = written["rows"]
    assert {"onnxruntime fp32", "onnxruntime int8"} <= set(first["ms"])
    assert all(0 < ms <= first["p90"][form] for form, ms in first["ms"].items())
    assert first["parameters"] > 0
    assert second["macs"] > first["macs"] > 0


@pytest.mark.parametrize(
    ("name", "message"), [("edge/4:detail", "write options as key=value"), ("edgy", "unknown network")]
)
def test_mistakes_get_one_line(name, message):
    with pytest.raises(UserError, match=message):
        main([name, *FAST])


def test_networks_for_grasps_take_depth(tmp_path, capsys):
    file = tmp_path / "grasps.json"
    main(
        [
            "ggcnn",
            "edge/4:detail=True,dropout=0.0",
            "--grasps",
            "--size",
            "60",
            "--runs",
            "1",
            "--json",
            str(file),
        ]
    )
    assert "edge/4:detail=True" in capsys.readouterr().out
    ggcnn, edge = json.loads(file.read_text())["rows"]
    assert ggcnn["macs"] > edge["macs"] > 0
    small = fold_branches(EdgeNet(1, 4, width=4, detail=True))
    assert (edge["parameters"], edge["macs"]) == (count_parameters(small), count_macs(small, 1, (60, 60)))
