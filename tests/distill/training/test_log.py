"""Lines of a run."""

import pytest

from distill.training.log import say


@pytest.mark.parametrize("line", ["classes   [road], [b]", "classes   [/road]", "a:car:b"])
def test_lines_are_printed_as_they_are(line, capsys):
    say(line)
    assert capsys.readouterr().err == f"{line}\n"
