"""Lending lanes: no more than the limit, callers wait, nothing is lost after failures."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from deploy.backends.tensorrt_gpu.cuda_interface import CudaError, OutOfGpuMemory
from deploy.backends.tensorrt_gpu.lane_pool import LanePool
from deploy.errors import UserError


class Lanes:
    """Makes lanes that only count themselves; `most` is the largest number that existed at a time."""

    def __init__(self, memory=99):
        self.memory, self.alive, self.most, self.made = memory, 0, 0, []
        self.making = threading.Lock()

    def make(self, capacity):
        assert self.making.acquire(blocking=False), "two at a time"
        try:
            if self.alive == self.memory:
                raise OutOfGpuMemory("CUDA cannot allocate 5 bytes on the GPU: out of memory")
            self.alive += 1
            self.most = max(self.most, self.alive)
            self.made.append(capacity)
            return Lane(self, capacity)
        finally:
            self.making.release()


class Lane:
    def __init__(self, lanes, capacity):
        self.lanes, self.capacity, self.closed = lanes, capacity, False

    def close(self):
        assert not self.closed
        self.closed = True
        self.lanes.alive -= 1


def use_at_once(pool, calls, together=1):
    """Many calls from as many threads, each of which waits for others while it has its lane."""
    meet = threading.Barrier(together, timeout=20)

    def work(number):
        with pool.lane(1) as lane:
            assert not lane.closed
            if number < together:
                meet.wait()
        return number

    with ThreadPoolExecutor(calls) as executor:
        return list(executor.map(work, range(calls)))


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_than_the_limit(most):
    lanes = Lanes()
    pool = LanePool("engine", lanes.make, most)
    assert use_at_once(pool, 16, most) == list(range(16))
    assert lanes.most == most
    pool.close()
    assert lanes.alive == 0


def test_one_that_is_idle_is_used_again():
    lanes = Lanes()
    pool = LanePool("engine", lanes.make, 4)
    for _ in range(3):
        with pool.lane(2) as lane:
            assert lane.capacity == 2
    assert lanes.made == [2]


def test_lanes_for_another_batch_size_give_way():
    lanes = Lanes()
    pool = LanePool("engine", lanes.make, 2)
    for capacity in (1, 2, 1, 3, 3):
        with pool.lane(capacity) as lane:
            assert lane.capacity == capacity
    assert lanes.made == [1, 2, 3]
    assert lanes.most == 2


def test_where_memory_is_short_calls_wait_for_the_lanes_there_are():
    lanes = Lanes(memory=2)
    pool = LanePool("engine", lanes.make, 8)
    others = [threading.Thread(target=use_at_once, args=(pool, 1)) for _ in range(5)]

    def while_two_are_in_use():
        with pool.lane(1), pool.lane(1):
            for thread in others:
                thread.start()
            while pool.most > 2:
                time.sleep(0.01)
        for thread in others:
            thread.join(timeout=20)

    with pytest.warns(RuntimeWarning, match="out of memory; until then fewer calls run at a time") as caught:
        while_two_are_in_use()
    assert len(caught) == 1
    assert not any(thread.is_alive() for thread in others)
    assert lanes.most == 2


def test_not_even_one_fits():
    pool = LanePool("engine", Lanes(memory=0).make, 8)
    for _ in range(2):
        with pytest.raises(OutOfGpuMemory, match="out of memory"), pool.lane(1):
            pass


def test_other_failures_are_passed_on_and_leave_room():
    lanes = Lanes()

    def fail(capacity):
        raise CudaError("CUDA cannot create a stream: an illegal memory access")

    pool = LanePool("engine", fail, 1)
    with pytest.raises(CudaError, match="illegal"), pool.lane(1):
        pass
    pool._make = lanes.make
    with pool.lane(1) as lane:
        assert not lane.closed


def test_after_a_failed_call_its_lane_is_closed_and_another_made():
    lanes = Lanes()
    pool = LanePool("engine", lanes.make, 1)
    with pytest.raises(ZeroDivisionError), pool.lane(1):
        print(1 / 0)
    assert lanes.alive == 0
    with pool.lane(1):
        pass
    assert lanes.made == [1, 1]


def test_closing_wakes_those_who_wait():
    lanes = Lanes()
    pool = LanePool("engine", lanes.make, 1)
    errors = []

    def wait():
        try:
            with pool.lane(1):
                pass
        except UserError as error:
            errors.append(str(error))

    with pool.lane(1):
        thread = threading.Thread(target=wait)
        thread.start()
        pool.close()
        thread.join(timeout=20)
    assert errors == ["engine: was closed; load the bundle again"]
    assert lanes.alive == 0
