"""Running TensorRT engines without a GPU: TensorRT's real types as contracts, numpy arrays as memory."""

import numpy as np
import pytest

from deploy.backends.gpu_options import GpuOptions
from deploy.backends.tensorrt_gpu.cuda_interface import CudaError
from deploy.bundle.manifest import MODEL
from deploy.errors import UserError
from tests.deploy.backends.tensorrt_gpu.trt_fakes import (
    LIBRARIES,
    TENSORS,
    FakeTensorRT,
    assert_same,
    checked,
    documented_signatures,
    images,
    library,
    open_engine,
)
from tests.deploy.tiny import make_bundle, make_image


@pytest.fixture(params=LIBRARIES)
def fake(request, tmp_path):
    make_bundle(tmp_path / "bundle")
    return FakeTensorRT(library(request.param), tmp_path / "bundle" / MODEL)


@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize(
    ("count", "profile", "runs"),
    [
        (1, (1, 2, 4), [1]),
        (3, (1, 2, 4), [3]),
        (9, (1, 2, 4), [4, 4, 1]),
        (1, (2, 2, 4), [2]),  # fewer than the engine's smallest batch
        (6, (4, 4, 4), [4, 4]),
    ],
)
def test_any_batch_gives_what_the_network_gives(fake, tmp_path, cuda_graph, count, profile, runs):
    fake.profile = profile
    engine = open_engine(fake, tmp_path, GpuOptions(cuda_graph=cuda_graph))
    batch = images(count)
    assert_same(engine.run(batch), fake.oracle.run(batch))
    assert_same(engine.run(batch), fake.oracle.run(batch))
    warm_up = sorted(set(runs), reverse=True) if cuda_graph and fake.backend == "tensorrt" else []
    assert sorted(fake.runs) == sorted(runs + runs + warm_up)


def test_an_engine_of_the_process_before_a_fork_refuses(fake, tmp_path):
    engine = open_engine(fake, tmp_path)
    engine._process -= 1
    for run in (engine.run, engine.run_on_device):
        with pytest.raises(UserError, match="was loaded before this process was forked"):
            run(images(1))


def test_a_small_batch_is_filled_up_with_its_last_image(fake, tmp_path):
    seen = []
    fake.profile, fake.network = (3, 3, 4), lambda batch: seen.append(batch) or fake.oracle.run(batch)
    engine = open_engine(fake, tmp_path)
    engine.run(images(4, seed=9))
    engine.run(images(2))
    np.testing.assert_array_equal(seen[-1], images(2)[[0, 1, 1]])


def test_a_fixed_batch_is_read_from_the_engine(fake, tmp_path):
    fake.tensors = {name: (kind, (2, *shape[1:]), way) for name, (kind, shape, way) in TENSORS.items()}
    engine = open_engine(fake, tmp_path)
    assert (engine.smallest_batch, engine.largest_batch) == (2, 2)
    assert_same(engine.run(images(3)), fake.oracle.run(images(3)))
    assert fake.runs == [2, 2]


@pytest.mark.parametrize("kind", ["INT32", "INT64"])
def test_labels_and_logits_of_other_types_are_cast(fake, tmp_path, kind):
    fake.tensors = TENSORS | {"labels": (kind, (-1, 32, 48), False)}
    assert_same(open_engine(fake, tmp_path).run(images(2)), fake.oracle.run(images(2)))


@pytest.mark.parametrize("name", LIBRARIES)
def test_float_bundles_and_more_outputs(name, tmp_path):
    make_bundle(tmp_path / "sar", "sar")
    tensors = {
        "extra": ("FLOAT", (-1, 5), False),
        "image": ("FLOAT", (-1, 2, 32, 48), True),
        "labels": ("UINT8", (-1, 32, 48), False),
        "logits": ("FLOAT", (-1, 2, 4, 6), False),
    }
    fake = FakeTensorRT(library(name), tmp_path / "sar" / MODEL, tensors)
    batch = np.stack([make_image("sar", seed) for seed in range(2)]).transpose(0, 3, 1, 2)
    assert not batch.flags.c_contiguous
    assert_same(open_engine(fake, tmp_path).run(batch), fake.oracle.run(batch))


def test_outputs_are_arrays_of_their_own(fake, tmp_path):
    engine = open_engine(fake, tmp_path)
    first = engine.run(images(2))
    engine.run(images(2, seed=5))
    engine.close()
    assert_same(first, fake.oracle.run(images(2)))
    assert all(array.base is None for array in first.values())


def test_order_of_work(fake, tmp_path):
    engine = open_engine(fake, tmp_path)
    assert fake.cuda.calls == []
    engine.run(images(1))
    copies = ["to_device", "execute", "to_host", "to_host", "sync"]
    assert [call for call in fake.cuda.calls if call in copies][:5] == copies
    fake.cuda.calls.clear()
    engine.run(images(1))
    assert set(fake.cuda.calls) == set(copies)  # nothing is allocated any more
    assert len(fake.contexts) == 1


def test_cuda_graph(fake, tmp_path):
    engine = open_engine(fake, tmp_path, GpuOptions(cuda_graph=True))
    for batch in (1, 3, 1, 3):
        engine.run(images(batch))
    if fake.backend == "tensorrt":
        assert fake.cuda.calls.count("capture") == 2  # one for each batch size, in a context of its own
        assert fake.cuda.calls.count("launch") == 4
        assert fake.cuda.calls.count("execute") == 4  # to prepare and to capture
        assert len(fake.contexts) == 2
    else:  # TensorRT-RTX does it itself
        assert "capture" not in fake.cuda.calls
        [context] = fake.contexts
        strategy = context.options["runtime_config"].cuda_graph_strategy
        assert strategy == fake.real.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE


def test_engine_that_makes_no_graph(fake, tmp_path, monkeypatch):
    if fake.backend != "tensorrt":
        pytest.skip("TensorRT-RTX captures by itself")

    def refuse(*_):
        raise CudaError("operation not permitted when stream is capturing")

    monkeypatch.setattr(fake.cuda, "capture", refuse)
    engine = open_engine(fake, tmp_path, GpuOptions(cuda_graph=True))
    with pytest.raises(UserError, match=r"not permitted.*no CUDA graph, open it without"):
        engine.run(images(1))
    assert not fake.cuda.alive


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((1, 32, 48, 3), np.float32),
        np.zeros((1, 48, 32, 3), np.uint8),
        np.zeros((32, 48, 3), np.uint8),
        np.zeros((0, 32, 48, 3), np.uint8),
    ],
    ids=["dtype", "size", "no batch axis", "empty"],
)
def test_wrong_input(fake, tmp_path, batch):
    engine = open_engine(fake, tmp_path)
    with pytest.raises(UserError, match=r"int8: takes uint8 N×32×48×3, got (uint8|float32) [0-9×]+$"):
        engine.run(batch)


def test_engine_that_cannot_be_loaded(fake, tmp_path):
    fake.loads = False
    with pytest.raises(UserError, match=r"cannot load it \(it does not say why\); build it again$"):
        open_engine(fake, tmp_path)


@pytest.mark.parametrize(
    ("tensors", "listed"),
    [
        ({"scores": ("FLOAT", (-1, 3), False)} | {"image": TENSORS["image"]}, "scores"),
        (TENSORS | {"second": TENSORS["image"]}, "second"),
        (TENSORS | {"image": ("UINT8", (-1, -1, -1, 3), True)}, "-1"),
    ],
)
def test_engine_of_another_kind_of_network(fake, tmp_path, tensors, listed):
    fake.tensors = tensors
    with pytest.raises(UserError, match=rf"has .*{listed}.* needs one input, labels and logits"):
        open_engine(fake, tmp_path)


def test_times(fake, tmp_path):
    engine = open_engine(fake, tmp_path)
    times = engine.time(images(2), runs=5)
    assert times.shape == (5,)
    assert (times > 0).all()
    assert fake.cuda.calls.count("to_device") == 5
    engine.time(images(2), runs=5, copies=False)
    assert fake.cuda.calls.count("to_device") == 5
    assert fake.cuda.calls.count("execute") == 10
    assert not any(isinstance(thing, list) for thing in fake.cuda.alive.values())  # the events are gone


def test_options_reach_the_runtime(fake, tmp_path):
    engine = open_engine(fake, tmp_path, GpuOptions(allow_host_code=True), built={"dla_core": 1})
    assert engine._runtime.engine_host_code_allowed is True
    assert engine._runtime.DLA_core == 1
    # What lies beside the engine has no say: whoever wrote the one may have written the other.
    from_elsewhere = open_engine(fake, tmp_path, built={"version_compatible": True})
    assert from_elsewhere._runtime.engine_host_code_allowed is False


def test_contracts_notice_wrong_calls(fake):
    real = fake.real
    context, engine = real.IExecutionContext, real.ICudaEngine
    execute = checked(context.execute_async_v3, lambda stream_handle: True)
    assert execute(5)
    shape = checked(context.set_input_shape, lambda name, shape: True)
    assert shape("image", (1, 2))
    assert shape("image", real.Dims((1, 2)))
    create = checked(engine.create_execution_context, lambda **_: True)
    assert create()
    overloads = documented_signatures(engine.create_execution_context)
    assert [list(one.parameters)[1:] for one in overloads][1:] in ([], [["runtime_config"]])
    for wrong in (
        lambda: execute(),
        lambda: execute("5"),
        lambda: execute(5, 6),
        lambda: execute(stream=5),
        lambda: shape((1, 2), "image"),
        lambda: create(config=None),
    ):
        with pytest.raises(TypeError):
            wrong()
