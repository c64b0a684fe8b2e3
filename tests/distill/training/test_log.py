"""Lines of a run."""

import json

import pytest

from distill.training.log import TrainLog, say


@pytest.mark.parametrize("line", ["classes   [road], [b]", "classes   [/road]", "a:car:b"])
def test_lines_are_printed_as_they_are(line, capsys):
    say(line)
    assert capsys.readouterr().err == f"{line}\n"


def test_damaged_lines_are_left_out_with_a_word(tmp_path, capsys):
    lines = [
        '{"step": 1, "seconds": 5.0}',
        "[1]",
        '{"step": "a"}',
        "\udcff",
        '{"step": 2}',
        '{"step": 3, "seconds": 9}',
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join([*lines, '{"ste']), encoding="utf-8", errors="surrogateescape")
    with TrainLog(tmp_path, "tiny", 2, 4, 1, lambda *_: None) as log:
        assert log.spent == 9.0
    assert [json.loads(line)["step"] for line in path.read_text(encoding="utf-8").splitlines()] == [1, 2]
    said = capsys.readouterr().err.replace("\n", " ")
    assert [f"metrics.jsonl: line {number} is damaged" in said for number in range(1, 8)] == [
        False, True, True, True, False, False, False,
    ]  # fmt: skip
