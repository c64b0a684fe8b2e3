"""DLPack's capsules, with numpy as the other library: it speaks the protocol for memory of the CPU."""

import gc

import numpy as np
import pytest

from deploy.backends.tensorrt_gpu import dlpack
from deploy.errors import UserError

CPU = 1


class Array:
    """Exports its memory, as if it were on the CPU."""

    def __init__(self, values):
        self.values = values

    def __dlpack__(self, **_):
        return dlpack.export(
            self, self.values.ctypes.data, self.values.shape, self.values.dtype, self.__dlpack_device__()
        )

    def __dlpack_device__(self):
        return CPU, 0


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.float16, np.float32, bool])
def test_what_is_exported_is_read_by_numpy(dtype):
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    read = np.from_dlpack(Array(values))
    np.testing.assert_array_equal(read, values)
    assert (read.dtype, read.ctypes.data) == (values.dtype, values.ctypes.data)


def test_memory_lives_as_long_as_another_library_uses_it():
    read = np.from_dlpack(Array(np.arange(5)))
    gc.collect()
    assert len(dlpack._exported) == 1
    assert read.sum() == 10
    del read
    gc.collect()
    assert not dlpack._exported


def test_a_capsule_that_nobody_takes_keeps_nothing():
    capsule = Array(np.arange(5)).__dlpack__()
    assert len(dlpack._exported) == 1
    del capsule
    gc.collect()
    assert not dlpack._exported


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float32, bool])
def test_what_numpy_exports_is_read(dtype):
    values = np.arange(6).reshape(2, 3).astype(dtype)
    found = dlpack.borrow(values.__dlpack__())
    assert found[:4] == (values.ctypes.data, (2, 3), values.dtype, True)


def test_order_and_offset():
    values = np.arange(24, dtype=np.int32).reshape(4, 6)
    part = dlpack.borrow(values[2:].__dlpack__())
    assert (part.address, part.shape, part.contiguous) == (values[2:].ctypes.data, (2, 6), True)
    assert not dlpack.borrow(values[:, ::2].__dlpack__()).contiguous
    assert not dlpack.borrow(values.T.__dlpack__()).contiguous


def test_the_other_library_is_told_when_its_array_is_no_longer_needed():
    array = Array(np.arange(3))
    found = dlpack.borrow(array.__dlpack__())
    assert len(dlpack._exported) == 1
    del found
    gc.collect()
    assert not dlpack._exported


def test_capsules_are_used_once():
    capsule = np.arange(3).__dlpack__()
    kept = dlpack.borrow(capsule)
    with pytest.raises(UserError, match="was used before"):
        dlpack.borrow(capsule)
    with pytest.raises(UserError, match="or has another form"):
        dlpack.borrow(object())
    assert kept.shape == (3,)


def test_types_that_numpy_does_not_have():
    torch = pytest.importorskip("torch")
    with pytest.raises(UserError, match="a type that numpy does not have"):
        dlpack.borrow(torch.zeros(2, dtype=torch.bfloat16).__dlpack__())
