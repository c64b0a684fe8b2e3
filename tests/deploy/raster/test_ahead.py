"""Stages that work ahead of their consumer, and progress."""

import io
import threading
import time
from itertools import count

import pytest

from deploy.raster.ahead import ahead
from deploy.raster.progress import Progress


def test_same_items_in_order():
    assert list(ahead((i for i in range(100)), 3)) == list(range(100))


def test_stays_ahead_but_not_too_far():
    made = []

    def items():
        for i in count():
            made.append(i)
            yield i

    stage = ahead(items(), 2)
    assert next(stage) == 0
    time.sleep(0.2)
    assert 2 <= len(made) <= 4
    stage.close()
    assert threading.active_count() == 1 or all(t.name != "ahead" for t in threading.enumerate())


def test_errors_come_in_their_place():
    def items():
        yield 1
        raise ValueError("two")

    stage = ahead(items(), 5)
    assert next(stage) == 1
    with pytest.raises(ValueError, match="two"):
        next(stage)


def test_closing_closes_the_items_of_nested_stages():
    closed = []

    def items():
        try:
            yield from count()
        finally:
            closed.append(threading.current_thread().name)

    def inner(stage):
        try:
            yield from stage
        finally:
            stage.close()

    stage = ahead(inner(ahead(items(), 1)), 1)
    next(stage)
    stage.close()
    assert closed == ["ahead"]
    assert all(thread.name != "ahead" for thread in threading.enumerate())


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_where_there_is_no_terminal():
    stream = io.StringIO()
    progress = Progress(stream=stream)
    for done in range(0, 201):
        progress(done, 200)
    progress.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0].startswith(" 10 %  20 of 200 tiles")
    assert "left" not in lines[-1]


def test_bar_on_a_terminal():
    stream = Terminal()
    progress = Progress(stream=stream)
    progress(0, 4)
    progress(4, 4)
    progress.close()
    assert stream.getvalue().startswith(f"\r[{'#' * 30}]  100 %  4 of 4 tiles")
    assert stream.getvalue().endswith("\n")


def test_nothing_to_do():
    stream = Terminal()
    progress = Progress(stream=stream)
    progress(4, 4)
    progress.close()
    assert stream.getvalue() == ""
