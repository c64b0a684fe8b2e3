import time

import pytest

from deploy import heartbeat
from deploy.heartbeat import told, working


def test_tells_what_goes_on_while_nothing_else_does():
    lines: list[str] = []
    with working("exporting", lines.append, every=0.01):
        while len(lines) < 3:
            time.sleep(0.005)
    assert all(line.startswith("exporting … ") and line.endswith(" s") for line in lines)
    count = len(lines)
    time.sleep(0.05)
    assert len(lines) == count, "silent once the block has ended"


def test_asks_for_each_line():
    steps = iter(range(1000))
    lines: list[str] = []
    with working(lambda: f"step {next(steps)}", lines.append, every=0.01):
        while len(lines) < 2:
            time.sleep(0.005)
    assert [line.split(" …")[0] for line in lines[:2]] == ["step 0", "step 1"]


def test_a_short_block_says_nothing(capsys):
    with working("exporting"):
        pass
    assert capsys.readouterr().err == ""


def test_other_lines_count(monkeypatch):
    monkeypatch.setattr(heartbeat, "_last", [time.monotonic() - 100])
    lines: list[str] = []
    told()
    with working("training", lines.append, every=10):
        time.sleep(0.7)  # it looks twenty times in `every`
    assert lines == []


def test_silence_is_counted_across_blocks():
    lines: list[str] = []
    told()
    for number in range(6):
        with working(f"stage {number}", lines.append, every=0.4):
            time.sleep(0.1)
    assert lines, "each block alone is shorter than the longest silence"


def test_an_error_passes_through():
    lines: list[str] = []
    with pytest.raises(ZeroDivisionError), working("dividing", lines.append, every=0.01):
        print(1 // 0)
