"""CUDA's two providers without a GPU: NVIDIA's bindings as their signatures say, pycuda as its documentation says."""

import threading
from contextlib import ExitStack
from unittest.mock import Mock

import numpy as np
import pytest

from deploy.backends.tensorrt_gpu.cuda import CudaBindings, PyCuda
from deploy.backends.tensorrt_gpu.cuda_interface import CudaError, Device, OutOfGpuMemory
from deploy.errors import UserError


def test_device(runtime, driver):
    pycuda = PyCuda()
    assert pycuda.device == Device("Orin", "8.7", 8 << 30, "12.6", "12.6", "pycuda", 0, True, "0000:0a:00.0")
    assert driver.initialized


def test_device_by_the_bindings(runtime):
    assert CudaBindings().device == Device(
        "Orin", "8.7", 8 << 30, "12.6", "12.9", "cuda-bindings", 0, True, "0000:0a:00.0"
    )


def round_trip(gpu, values):
    """Copy an array to the GPU and back."""
    with gpu.current(), ExitStack() as owner:
        stream = gpu.stream(owner)
        here = gpu.host_empty(owner, values.shape, values.dtype)
        back = gpu.host_empty(owner, values.shape, values.dtype)
        address = gpu.malloc(owner, values.nbytes)
        here[...] = values
        gpu.to_device(address, here, stream)
        gpu.to_host(back[:2], address, stream)
        gpu.sync(stream)
        return back[:2].copy()


def test_memory_and_streams(provider):
    gpu, fake = provider
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(round_trip(gpu, values), values[:2])
    assert not fake.alive


def test_several_threads(provider):
    gpu, fake = provider
    results = {}

    def work(number):
        results[number] = round_trip(gpu, np.full((3, 5), number, np.int64))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: set(array.flat) for number, array in results.items()} == {n: {n} for n in range(4)}
    assert not fake.alive


def test_the_gpu_is_chosen_in_each_thread(runtime):
    gpu = CudaBindings()
    thread = threading.Thread(target=lambda: round_trip(gpu, np.zeros(3, np.uint8)))
    thread.start()
    thread.join()
    assert runtime.driver.pushed == runtime.driver.popped == [(thread.ident, 0)]


def test_another_gpu(provider):
    gpu, _ = provider
    other = type(gpu)(1)
    assert (other.device.name, other.device.index) == ("Another", 1)
    with pytest.raises(CudaError, match=r"there is no device 2, devices 0 to 1 \(CUDA_VISIBLE_DEVICES hides"):
        type(gpu)(2)


def test_the_callers_gpu_is_current_again_after_each_call(runtime):
    first, second = CudaBindings(0), CudaBindings(1)
    driver = runtime.driver
    with first.current():  # the caller works on the first GPU
        round_trip(second, np.zeros(3, np.uint8))
        assert driver.current == 0
        with second.current():
            assert driver.current == 1
        with pytest.raises(ZeroDivisionError), second.current():
            print(1 / 0)
        assert driver.current == 0
    assert driver.current is None
    assert driver.retained == [0, 1]  # no context was started on a GPU that nobody asked for


def test_a_gpu_that_is_full_or_broken(runtime):
    errors = runtime.driver.CUresult
    runtime.driver.fail = {"cuDevicePrimaryCtxRetain": errors.CUDA_ERROR_OUT_OF_MEMORY}
    with pytest.raises(OutOfGpuMemory, match=r"cannot use the GPU: .*memory; free"), CudaBindings().current():
        pass
    runtime.driver.fail = {"cuCtxPushCurrent": errors.CUDA_ERROR_INVALID_CONTEXT}
    with pytest.raises(CudaError, match="cannot use the GPU: cuda_error_invalid"), CudaBindings().current():
        pass


def test_events(provider):
    gpu, fake = provider
    with gpu.current(), ExitStack() as owner:
        stream, start, end = gpu.stream(owner), gpu.event(owner), gpu.event(owner)
        gpu.record(start, stream)
        gpu.record(end, stream)
        gpu.sync(stream)
        assert gpu.elapsed(start, end) == 1.5
        assert gpu.memory() == (5 << 30, 8 << 30)
    assert not fake.alive


def test_graph(runtime):
    gpu = CudaBindings()
    with gpu.current(), ExitStack() as owner:
        stream = gpu.stream(owner)
        here, back = (gpu.host_empty(owner, (4,), np.dtype(np.uint8)) for _ in range(2))
        address = gpu.malloc(owner, 4)

        def work():
            gpu.to_device(address, here, stream)
            gpu.to_host(back, address, stream)

        back[...] = 0
        here[...] = 1
        launch = gpu.capture(owner, stream, work)
        gpu.sync(stream)
        assert set(back) == {0}  # captured, not run
        for value in (2, 3):
            here[...] = value
            launch()
            gpu.sync(stream)
            assert set(back) == {value}
    assert not runtime.alive


def test_failed_capture_frees_the_stream(runtime):
    gpu = CudaBindings()
    with gpu.current(), ExitStack() as owner:
        stream = gpu.stream(owner)
        with pytest.raises(ZeroDivisionError):
            gpu.capture(owner, stream, lambda: print(1 / 0))
        assert runtime.capturing is None


def test_pycuda_has_no_graphs(driver):
    with pytest.raises(UserError, match="pycuda offers no CUDA graphs; pip install cuda-bindings"):
        PyCuda().capture(ExitStack(), 0, lambda: None)


def test_errors_say_what_failed_and_why(runtime):
    gpu, errors = CudaBindings(), runtime.cudaError_t
    with gpu.current(), ExitStack() as owner:
        stream = gpu.stream(owner)
        runtime.fail = {"cudaStreamSynchronize": errors.cudaErrorIllegalAddress}
        with pytest.raises(
            CudaError, match="CUDA cannot finish the work of a stream: an illegal memory access"
        ):
            gpu.sync(stream)
        runtime.fail = {"cudaMalloc": errors.cudaErrorMemoryAllocation}
        with pytest.raises(
            UserError, match="cannot allocate 1,000 bytes on the GPU: out of memory; free"
        ) as short:
            gpu.malloc(owner, 1000)
        assert isinstance(short.value, OutOfGpuMemory)


def test_errors_of_pycuda(driver):
    gpu = PyCuda()
    with pytest.raises(UserError, match="CUDA: cuMemAlloc failed: out of memory; free"), gpu.current():
        raise driver.MemoryError("cuMemAlloc failed: out of memory")
    with pytest.raises(CudaError, match="CUDA: cuStreamSynchronize failed"), gpu.current():
        raise driver.Error("cuStreamSynchronize failed: unspecified launch failure")
    assert driver.stacks.depth == 0


@pytest.mark.parametrize("call", ["retain_primary_context", "push", "pop"])
def test_a_context_that_cannot_be_had(driver, monkeypatch, call):
    def fail(*_):
        raise driver.Error(f"{call} failed: unknown error")

    if call == "retain_primary_context":
        gpu = driver.Device(0)
        gpu.retain_primary_context = fail
        monkeypatch.setattr(driver, "Device", Mock(return_value=gpu, count=lambda: 1))
    else:
        monkeypatch.setattr(driver, call, fail)
    gpu = PyCuda()
    with pytest.raises(CudaError, match=f"CUDA: {call} failed"), gpu.current():
        pass
