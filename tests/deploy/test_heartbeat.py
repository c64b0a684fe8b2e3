import io
import os
import sys
import time

import pytest

from deploy import heartbeat
from deploy.heartbeat import counted, told, working
from deploy.terminal import Output, _status, can_show_status, clear_status, show_status


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


def test_loops_are_counted_with_the_time_that_is_left():
    lines: list[str] = []
    with working("scoring", lines.append, every=0.01):
        for step, _ in enumerate(counted([1, 2, 3, 4])):
            for _ in counted(range(9)):  # the outer loop is told of
                pass
            before = len(lines)
            while step < 3 and len(lines) < before + 2:
                time.sleep(0.002)
        before = len(lines)
        while len(lines) < before + 2:
            time.sleep(0.002)
    assert any(line.startswith("scoring … 0 of 4, ") for line in lines)
    counts = [line.split(" … ")[1] for line in lines]
    assert any(text.startswith("2 of 4, ") and text.endswith(" s left") for text in counts)
    assert counts[-1].count("of") == 0, "after the loop it is not told of"
    assert not heartbeat._counts


def test_a_loop_of_unknown_length_and_one_that_is_left(monkeypatch):
    lines: list[str] = []
    with working("scoring", lines.append, every=0.01):
        for _ in counted(iter(range(9))):
            while not any("0 done, " in line for line in lines):
                time.sleep(0.002)
            break
    assert list(counted(iter([5]))) == [5]


class TestTerminal:
    @pytest.fixture
    def terminal(self, monkeypatch):
        """A terminal to be set as stderr in the test, as pytest sets its own before; and a reader of what it shows."""
        ours, its = os.openpty()
        stream = Output(io.TextIOWrapper(io.FileIO(its, "w"), "utf-8", line_buffering=True))
        monkeypatch.setenv("TERM", "xterm")
        yield stream, lambda: os.read(ours, 100_000).decode()
        stream.close()
        os.close(ours)

    def test_a_line_in_place_that_prints_replace(self, terminal, monkeypatch):
        stream, read = terminal
        monkeypatch.setattr("sys.stderr", stream)
        monkeypatch.setattr(heartbeat, "ON_TERMINAL", 0.01)
        monkeypatch.setattr(heartbeat, "SHORT", 0.0)
        shown = ""
        with working("scoring"):
            for _ in counted([1, 2]):
                while "0 of 2" not in shown:
                    shown += read()  # waits until something is shown
                break
            print("a line", file=sys.stderr)
        shown += read()
        assert "\rscoring … [....................] 0 of 2, " in shown
        assert "\r\x1b[Ka line" in shown, "the line in place is taken away before others"
        assert shown.count("\n") == 1, "it never ends in a new line itself"
        assert not _status

    def test_long_texts_are_cut_and_escaped(self, terminal, monkeypatch):
        stream, read = terminal
        monkeypatch.setattr("sys.stderr", stream)
        show_status("x" * 500 + "\n")
        clear_status()
        shown = read()
        assert 20 <= shown.count("x") <= 300
        assert "\n" not in shown

    def test_not_where_it_cannot_be_drawn(self, terminal, monkeypatch):
        monkeypatch.setattr("sys.stderr", terminal[0])
        assert can_show_status()
        monkeypatch.setenv("TERM", "dumb")
        assert not can_show_status()
        monkeypatch.setattr("sys.stderr", io.StringIO())
        assert not can_show_status()
        show_status("nothing happens")
