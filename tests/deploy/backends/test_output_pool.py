"""Output arrays are written again exactly when nobody holds them."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from deploy.backends.output_pool import KEPT, OutputPool, shapes_of

SHAPES = {"labels": ((1, 4, 6), np.dtype(np.uint8)), "logits": ((1, 2, 2, 3), np.dtype(np.float32))}


def new_pool():
    """A pool whose library holds a reference of its own to each array, as OpenVINO's tensors do."""
    return OutputPool(SHAPES, lambda arrays: list(arrays.values()))


def call(pool, value=0):
    """What an engine does: write all outputs, hand them over."""
    slot = pool.take()
    for array in slot.arrays.values():
        array[:] = value
    return pool.give_back(slot)


def test_arrays_have_the_shapes_of_the_outputs():
    assert shapes_of(call(new_pool())) == SHAPES


def test_what_nobody_holds_is_written_again():
    pool = new_pool()
    first = {name: array.ctypes.data for name, array in call(pool).items()}
    assert {name: array.ctypes.data for name, array in call(pool).items()} == first


def test_what_is_held_is_not_written():
    pool = new_pool()
    held = [call(pool, value) for value in range(2 * KEPT)]
    assert [one["labels"].max() for one in held] == list(range(2 * KEPT))
    del held
    assert len({call(pool)["labels"].ctypes.data for _ in range(9)}) <= KEPT


def test_views_and_single_outputs_count_as_held():
    for keep in (
        lambda outputs: outputs["labels"][0, 1:],
        lambda outputs: outputs["labels"].reshape(-1)[::2],
        lambda outputs: outputs["logits"][:, 0],
        lambda outputs: memoryview(outputs["labels"]),
        lambda outputs: np.frombuffer(outputs["labels"], np.uint8)[3:5],
    ):
        pool = new_pool()
        kept = keep(call(pool, 5))
        for value in range(6, 6 + 2 * KEPT):
            call(pool, value)
        assert np.all(np.asarray(kept) == 5)


def test_a_callers_dictionary_is_his_own():
    pool = new_pool()
    call(pool).clear()
    assert set(call(pool)) == set(SHAPES)


def test_no_two_threads_write_the_same_array():
    pool, begin = new_pool(), threading.Barrier(4)

    def work(number):
        begin.wait()
        for _ in range(300):
            slot = pool.take()
            slot.arrays["labels"][:] = number
            outputs = pool.give_back(slot)
            if not np.all(outputs["labels"] == number):
                return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(4)))
