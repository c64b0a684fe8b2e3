"""Copies on the GPU, memory that it shares with the CPU, and streams that wait: by both providers."""

from contextlib import ExitStack

import numpy as np
import pytest

from deploy.errors import UserError


def test_from_one_place_on_the_gpu_to_another(provider):
    gpu, _ = provider
    with gpu.current(), ExitStack() as owner:
        stream = gpu.stream(owner)
        here, back = (gpu.host_empty(owner, (8,), np.dtype(np.uint8)) for _ in range(2))
        first, second = gpu.malloc(owner, 8), gpu.malloc(owner, 8)
        here[...] = range(8)
        gpu.to_device(first, here, stream)
        gpu.on_device(second, first, 8, stream)
        gpu.to_host(back, second, stream)
        gpu.sync(stream)
        np.testing.assert_array_equal(back, here)


def test_the_gpu_works_in_the_cpus_memory(provider):
    gpu, _ = provider
    assert gpu.device.integrated
    with gpu.current(), ExitStack() as owner:
        array = gpu.host_empty(owner, (4,), np.dtype(np.float32))
        assert gpu.mapped(array) == array.ctypes.data


def test_waiting_for_an_event(provider):
    gpu, _ = provider
    with gpu.current(), ExitStack() as owner:
        stream, event = gpu.stream(owner), gpu.event(owner)
        here, back = (gpu.host_empty(owner, (4,), np.dtype(np.uint8)) for _ in range(2))
        address = gpu.malloc(owner, 4)
        here[...] = 5
        gpu.to_device(address, here, stream)
        gpu.to_host(back, address, stream)
        gpu.record(event, stream)
        gpu.wait(event)
        assert set(back) == {5}


def test_a_stream_waits_for_that_of_another_library(runtime, driver):
    from deploy.backends.tensorrt_gpu.cuda import CudaBindings, PyCuda

    gpu = CudaBindings()
    with gpu.current(), ExitStack() as owner:
        stream, other = gpu.stream(owner), gpu.stream(owner)
        gpu.after(stream, other)
        assert runtime.waiting == [stream]
    assert not runtime.alive
    with pytest.raises(UserError, match="pycuda cannot wait for the streams of other libraries"):
        PyCuda().after(1, 2)
