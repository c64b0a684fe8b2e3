"""Latency, throughput with work queued ahead, and the time of each layer, on the fake GPU."""

import pytest

from deploy.backends.gpu_options import GpuOptions
from deploy.bundle.manifest import MODEL
from deploy.errors import UserError
from tests.deploy.backends.tensorrt_gpu.trt_fakes import (
    LAYERS,
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
def test_work_is_queued_ahead_on_each_stream(fake, tmp_path, cuda_graph):
    engine = open_engine(fake, tmp_path, GpuOptions(cuda_graph=cuda_graph))
    engine.throughput(images(2), 4, streams=2)  # to warm up
    fake.cuda.calls.clear()
    fake.runs.clear()
    rate = engine.throughput(images(2), 12, streams=2, ahead=3)
    assert rate > 0
    assert fake.runs == [2] * 12
    assert len(fake.contexts) == 2
    started = "launch" if cuda_graph and fake.backend == "tensorrt" else "execute"
    order = [call for call in fake.cuda.calls if call in (started, "wait")]
    assert order[:6] == [started] * 6  # three on each of two streams, before any is waited for
    assert order[6:] == ["wait", started] * 6
    assert "to_host" in fake.cuda.calls
    assert_same(engine.run(images(2)), fake.oracle.run(images(2)))


def test_without_copies(fake, tmp_path):
    engine = open_engine(fake, tmp_path)
    engine.throughput(images(1), 4, copies=False)
    assert "to_device" not in fake.cuda.calls


def test_no_more_streams_than_contexts(fake, tmp_path):
    engine = open_engine(fake, tmp_path, GpuOptions(max_contexts=1))
    with pytest.raises(UserError, match="2 streams need max_contexts=2, it is 1"):
        engine.throughput(images(1), 4)
    assert engine.throughput(images(1), 4, streams=1) > 0


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_layers(fake, tmp_path, cuda_graph):
    engine = open_engine(fake, tmp_path, GpuOptions(cuda_graph=cuda_graph))
    layers = engine.profile(images(2), runs=5)
    assert {layer.name: layer.ms for layer in layers} == LAYERS
    assert [layer.share for layer in layers] == [0.75, 0.25]
    assert fake.runs == [2] * 5
    assert "launch" not in fake.cuda.calls  # the layers of a graph would be reported in another way
    assert_same(engine.run(images(2)), fake.oracle.run(images(2)))
    assert fake.contexts[-1].context.profiler is None  # the context of the profile is not used again
