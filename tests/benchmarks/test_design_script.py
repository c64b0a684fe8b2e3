"""benchmarks/design.py: equal CPU time, a resumable sweep, the Pareto front and its picture."""

import json
from argparse import Namespace
from dataclasses import replace

import pytest

from benchmarks.design import _costs, main
from benchmarks.design_layouts import LAYOUTS, Layout, layouts
from benchmarks.design_report import Row, draw, front, markdown
from benchmarks.design_training import Result
from deploy.errors import UserError
from student.edge import SIZES
from student.zoo import build_network, count_parameters
from tests.distill.tiny import RUN


def row(name, int8, miou):
    results = () if miou is None else (Result(name, 0, 10, 60.0, miou, miou / 2),)
    return Row(name, 10**6, 10**9, {"a fp32": 2 * int8, "a int8": int8, "b int8": int8 + 1}, 30, results)


ROWS = [row("slow", 4.0, 0.5), row("fast", 1.0, 0.3), row("beaten", 2.0, 0.2), row("untrained", 0.5, None)]


def test_the_front_has_what_no_other_beats():
    assert [one.name for one in front(ROWS)] == ["fast", "slow"]
    assert [one.name for one in front([*ROWS, row("as fast", 1.0, 0.4)])] == ["as fast", "slow"]


def test_table_and_picture(tmp_path):
    lines = markdown(ROWS).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "untrained",
        "**fast**",
        "beaten",
        "**slow**",
    ]
    assert len({line.count("|") for line in lines}) == 1
    assert "| 30.0 | 15.0 |" in lines[3]
    draw(ROWS, tmp_path / "design.svg")
    picture = (tmp_path / "design.svg").read_text()
    assert "<svg" in picture
    assert "beaten" in picture
    assert "untrained" not in picture


def test_layouts_begin_with_the_listed_sizes_and_have_names():
    assert (
        len({layout.name for layout in LAYOUTS}) == len({layout.slug for layout in LAYOUTS}) == len(LAYOUTS)
    )
    for name, _ in SIZES:
        listed = count_parameters(build_network(name, 3, 11))
        assert listed in [count_parameters(layout.network(3, 11)) for layout in LAYOUTS[: len(SIZES)]]
    assert layouts([LAYOUTS[1].name]) == (LAYOUTS[1],)
    with pytest.raises(UserError, match="--layouts 'w24': no such layout"):
        layouts(["w24"])


def test_a_table_says_where_int8_is_slower():
    assert "INT8 is slower" not in markdown(ROWS)
    last = markdown([*ROWS[:3], replace(ROWS[3], ms={"a fp32": 1.0, "a int8": 2.0})][3:]).splitlines()[-1]
    assert last.startswith("INT8 is slower than fp32 here: untrained on a 0.50×")


def test_latency_of_other_inputs_is_not_taken(tmp_path, monkeypatch):
    asked = []

    def latencies(chosen, spec, classes, runs, folder):
        asked.append((spec.height, classes, runs))
        return {one.name: {"asked": len(asked)} for one in chosen}

    monkeypatch.setattr("benchmarks.design_costs.latencies", latencies)
    chosen = LAYOUTS[:2]
    for number, (size, classes, runs) in enumerate([(320, 11, 20), (640, 11, 20), (640, 5, 20), (640, 5, 9)]):
        options = Namespace(size=size, classes=classes, runs=runs)
        for _ in range(2):
            assert _costs(tmp_path, chosen, options)[chosen[0].name] == {"asked": number + 1}
    assert asked == [(320, 11, 20), (640, 11, 20), (640, 5, 20), (640, 5, 9)]


@pytest.mark.slow
def test_trains_for_equal_cpu_time_and_resumes(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.design_layouts.LAYOUTS", (Layout(4), Layout(4, (1, 1, 2, 1))))
    monkeypatch.setattr("benchmarks.design_costs.TURNS", 1)
    monkeypatch.setattr("benchmarks.design_costs.find_spec", lambda _: None)
    command = [*RUN, "--data.synthetic-counts", "8", "2", "2", "--minutes", "0.01", "--size", "64"]
    command += ["--runs", "1", "--classes", "3", "--out", str(tmp_path)]
    main(command)
    steps = json.loads((tmp_path / "steps.json").read_text())
    written = json.loads((tmp_path / "design.json").read_text())
    for one in written["rows"]:
        (result,) = one["results"]
        assert result["steps"] == int(0.6 / steps[one["name"]])
        assert 0 <= result["miou"] <= 1
        assert one["fused_layers"] is None
    first = capsys.readouterr().out
    main(command)
    assert json.loads((tmp_path / "design.json").read_text()) == written
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("w4")] == [
        line for line in first.splitlines() if line.startswith("w4")
    ]
    with pytest.raises(UserError, match="but the budget allows"):
        main([*command, "--minutes", "0.1"])


def test_layouts_are_compared_on_segmentation_only(tmp_path):
    (tmp_path / "latency-320-11-20.json").write_text(json.dumps({layout.name: {} for layout in LAYOUTS}))
    with pytest.raises(UserError, match="give a preset of segmentation"):
        main(
            [
                "quick-grasp",
                "--data.synthetic-counts",
                "8",
                "1",
                "1",
                "--precision=fp32",
                "--out",
                str(tmp_path),
            ]
        )
