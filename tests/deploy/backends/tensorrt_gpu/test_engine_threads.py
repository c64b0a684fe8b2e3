"""TensorRT engines in several threads at once, closed in any state, failing at any point: no leaks, no mix-ups."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from deploy.backends.gpu_options import GpuOptions
from deploy.backends.tensorrt_gpu.cuda_interface import CudaError
from deploy.bundle.manifest import MODEL
from deploy.errors import UserError
from tests.deploy.backends.tensorrt_gpu.trt_fakes import (
    LIBRARIES,
    FakeTensorRT,
    assert_same,
    images,
    library,
    open_engine,
)
from tests.deploy.tiny import make_bundle


@pytest.fixture(params=LIBRARIES)
def fake(request, tmp_path):
    make_bundle(tmp_path / "bundle")
    return FakeTensorRT(library(request.param), tmp_path / "bundle" / MODEL)


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_threads_have_contexts_of_their_own(fake, tmp_path, cuda_graph):
    engine = open_engine(fake, tmp_path, GpuOptions(cuda_graph=cuda_graph))
    together = threading.Barrier(4, timeout=20)
    network = fake.network

    def meet(image):
        if len(fake.runs) <= 8 and not cuda_graph:
            together.wait()  # all four are running at this moment
        return network(image)

    fake.network = meet

    def work(thread):
        return [engine.run(images(1 + thread % 2, seed=10 * thread + turn)) for turn in range(5)]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(4)))
    for thread, outputs in enumerate(results):
        for turn, one in enumerate(outputs):
            assert_same(one, fake.oracle.run(images(1 + thread % 2, seed=10 * thread + turn)))
    if not cuda_graph:
        assert len(fake.contexts) == 4
    engine.close()
    assert not fake.cuda.alive


def test_a_lane_in_use_is_not_shared(fake, tmp_path):
    engine = open_engine(fake, tmp_path)
    engine.run(images(1))
    network, others = fake.network, []

    def meanwhile(image):
        fake.network = network
        thread = threading.Thread(target=lambda: others.append(engine.run(images(1, seed=7))))
        thread.start()
        thread.join()
        return network(image)

    fake.network = meanwhile
    assert_same(engine.run(images(1)), fake.oracle.run(images(1)))
    assert_same(others[0], fake.oracle.run(images(1, seed=7)))
    assert len(fake.contexts) == 2


def test_close_releases_everything(fake, tmp_path):
    engine = open_engine(fake, tmp_path)
    engine.run(images(1))
    [[lane]] = engine._lanes._idle.values()
    assert fake.cuda.alive
    engine.close()
    assert lane._context is engine._engine is engine._runtime is None
    engine.close()
    assert not fake.cuda.alive
    with pytest.raises(UserError, match="was closed"):
        engine.run(images(1))


def test_close_during_a_run(fake, tmp_path):
    engine = open_engine(fake, tmp_path)
    network = fake.network

    def closing(image):
        engine.close()
        return network(image)

    fake.network = closing
    assert_same(engine.run(images(1)), fake.oracle.run(images(1)))
    assert not fake.cuda.alive


def test_an_engine_that_is_forgotten_is_closed(fake, tmp_path):
    engine = open_engine(fake, tmp_path)
    engine.run(images(1))
    del engine
    gc.collect()
    assert not fake.cuda.alive


@pytest.mark.parametrize("method", ["stream", "host_empty", "malloc", "to_device", "to_host", "sync"])
def test_a_failure_leaks_nothing(fake, tmp_path, method):
    engine = open_engine(fake, tmp_path)
    fake.cuda.fail = method
    with pytest.raises(MemoryError, match=method):
        engine.run(images(1))
    fake.cuda.fail = None
    assert not fake.cuda.alive
    assert_same(engine.run(images(1)), fake.oracle.run(images(1)))


def test_failed_run_says_what_tensorrt_said(fake, tmp_path):
    engine = open_engine(fake, tmp_path)
    engine.run(images(1))
    [[lane]] = engine._lanes._idle.values()

    def fail(stream_handle):
        fake.say_error("[executionContext.cpp::1234]\n  the sky is falling")
        return False

    lane._context.execute_async_v3.side_effect = fail
    with pytest.raises(CudaError, match=r"TensorRT cannot run: .* the sky is falling$"):
        engine.run(images(1))
    assert not fake.cuda.alive


def test_no_memory_for_a_context(fake, tmp_path):
    engine = open_engine(fake, tmp_path)
    engine._engine.create_execution_context.side_effect = None
    engine._engine.create_execution_context.return_value = None
    with pytest.raises(UserError, match="cannot create an execution context"):
        engine.run(images(1))
