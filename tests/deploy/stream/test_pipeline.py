"""Stages in threads: order, errors in both directions, bounded queues."""

import threading
import time
from collections.abc import Generator
from itertools import count
from typing import Any

import pytest

from deploy.stream.pipeline import PATIENCE, Pipeline
from tests.deploy.stream.networks import threads


def results(pipeline: Pipeline) -> list[Any]:
    """All results; the threads have ended."""
    pipeline.start()
    try:
        found = []
        while (item := pipeline.take()) is not None:
            found.append(item)
        return found
    finally:
        pipeline.stop()
        assert pipeline.join()
        assert threads() == []


def numbers(end: int) -> Generator[int, None, None]:
    yield from range(end)


@pytest.mark.parametrize("stages", [0, 1, 3])
def test_every_item_passes_every_stage_in_order(stages):
    pipeline = Pipeline(lambda: numbers(50), [lambda item: item + 100] * stages, size=3, drop=False)
    assert results(pipeline) == [item + 100 * stages for item in range(50)]


@pytest.mark.parametrize("broken", [0, 1])
def test_an_error_of_a_stage_stops_the_source_and_comes_after_the_results(broken):
    closed = threading.Event()

    def items():
        try:
            yield from count(1)
        finally:
            closed.set()

    def stage(item):
        if item == 4:
            raise ValueError("four")
        return item

    stages = [stage if index == broken else lambda item: item for index in range(2)]
    pipeline = Pipeline(items, stages, size=2, drop=False)
    pipeline.start()
    assert [pipeline.take() for _ in range(3)] == [1, 2, 3]
    with pytest.raises(ValueError, match="four"):
        pipeline.take()
    assert pipeline.join()
    assert closed.is_set()


def test_the_source_is_closed_in_its_own_thread():
    names = []

    def items():
        try:
            yield from count(1)
        finally:
            names.append(threading.current_thread().name)

    pipeline = Pipeline(items, [], size=1, drop=False)
    pipeline.start()
    assert pipeline.take() == 1
    pipeline.stop()
    assert pipeline.join()
    assert names == ["edgedistill-stream-0"]


def test_queues_never_hold_more_than_their_size():
    most = [0, 0, 0]
    made = []

    def items():
        for number in range(1, 60):
            made.append(number)
            yield number

    pipeline = Pipeline(items, [lambda item: item] * 2, size=3, drop=False)
    pipeline.start()
    for taken in range(1, 60):
        assert pipeline.take() == taken
        most = [max(a, len(b)) for a, b in zip(most, pipeline.channels, strict=True)]
        if taken == 5:
            time.sleep(0.1)  # a slow caller: everything fills up
            assert [len(channel) for channel in pipeline.channels] == [3, 1, 1]
            assert len(made) <= taken + 3 + 1 + 1 + 3  # waiting, and one in the hands of each thread
    pipeline.stop()
    assert pipeline.join()
    assert most[0] <= 3
    assert max(most[1:]) <= 1


def test_dropping_never_waits_for_the_caller():
    pipeline = Pipeline(lambda: (yield from range(1, 1000)), [lambda item: item], size=2, drop=True)
    pipeline.start()
    assert pipeline.join()  # the threads have ended though nobody took a result
    found = []
    while (item := pipeline.take()) is not None:
        found.append(item)
    assert found[-1] == 999
    assert found == sorted(found)
    assert len(found) < 10


def test_a_source_that_hangs_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("deploy.stream.pipeline.PATIENCE", 0.1)
    free = threading.Event()

    def items():
        yield 1
        free.wait(10)

    pipeline = Pipeline(items, [], size=1, drop=False)
    pipeline.start()
    assert pipeline.take() == 1
    begin = time.monotonic()
    pipeline.stop()
    assert not pipeline.join()
    assert time.monotonic() - begin < PATIENCE
    free.set()
    assert pipeline.join()


def test_a_source_that_waits_can_be_stopped():
    waited = threading.Event()

    def items():
        yield 1
        while True:
            waited.set()
            yield None

    pipeline = Pipeline(items, [], size=2, drop=False)
    pipeline.start()
    assert pipeline.take() == 1
    assert waited.wait(60)
    pipeline.stop()
    assert pipeline.join()
