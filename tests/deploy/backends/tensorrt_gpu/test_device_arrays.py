"""Arrays in GPU memory: in from other libraries, out to them, and memory that GPU and CPU share."""

import gc

import numpy as np
import pytest

import deploy
from deploy.backends.gpu_options import GpuOptions
from deploy.backends.tensorrt_gpu import dlpack
from deploy.backends.tensorrt_gpu.device_arrays import CUDA
from deploy.bundle.bundle_files import set_decision
from deploy.bundle.manifest import MODEL
from deploy.errors import UserError
from tests.deploy.backends.tensorrt_gpu.engines import add_engine
from tests.deploy.backends.tensorrt_gpu.gpu_fakes import GPU, MemoryCuda
from tests.deploy.backends.tensorrt_gpu.trt_fakes import (
    LIBRARIES,
    TENSORS,
    FakeTensorRT,
    assert_same,
    images,
    library,
    open_engine,
)
from tests.deploy.tiny import make_bundle, make_image


@pytest.fixture(params=LIBRARIES)
def fake(request, tmp_path):
    make_bundle(tmp_path / "bundle")
    return FakeTensorRT(library(request.param), tmp_path / "bundle" / MODEL)


class OnGpu:
    """An array of another library in the fake's GPU memory, by `__cuda_array_interface__`."""

    def __init__(self, cuda, values, **more):
        number = next(cuda._numbers)
        cuda.alive[number] = values.copy().reshape(-1).view(np.uint8)
        self.shape = values.shape
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": values.shape,
            "typestr": values.dtype.str,
            "data": (number, False),
            "stream": None,
        } | more


class ByDlpack(OnGpu):
    """The same by DLPack, which has addresses of this process only: so it says where to look."""

    device = (CUDA, 0)

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, *, stream):
        self.stream = stream
        found = self.__cuda_array_interface__
        return dlpack.export(self, found["data"][0], found["shape"], np.dtype(found["typestr"]), self.device)


def read(fake, array):
    """A `DeviceArray` as a numpy array."""
    return fake.cuda.read(array.address, array.shape, array.dtype)


@pytest.mark.parametrize("kind", [OnGpu, ByDlpack])
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_batches_on_the_gpu(fake, tmp_path, kind, cuda_graph):
    engine = open_engine(fake, tmp_path, GpuOptions(cuda_graph=cuda_graph))
    for count in (1, 3, 1):
        batch = images(count, seed=count)
        outputs = engine.run_on_device(kind(fake.cuda, batch))
        assert {name: array.shape for name, array in outputs.items()} == {
            "labels": (count, 32, 48),
            "logits": (count, 3, 4, 6),
        }
        assert_same({name: read(fake, array) for name, array in outputs.items()}, fake.oracle.run(batch))
    assert "to_device" not in fake.cuda.calls
    assert "to_host" not in fake.cuda.calls


def test_outputs_belong_to_the_caller(fake, tmp_path):
    engine = open_engine(fake, tmp_path)
    first = engine.run_on_device(OnGpu(fake.cuda, images(1)))
    before = {name: read(fake, array) for name, array in first.items()}
    engine.run_on_device(OnGpu(fake.cuda, images(1, seed=9)))
    engine.close()
    array = None
    for name, array in first.items():
        np.testing.assert_array_equal(read(fake, array), before[name])
    address = first["labels"].address
    interface = first["labels"].__cuda_array_interface__
    assert (interface["data"], interface["stream"], interface["version"]) == ((address, False), None, 3)
    capsule = first["labels"].__dlpack__(stream=1)
    assert first["labels"].__dlpack_device__() == (CUDA, 0)
    del first, array
    gc.collect()
    assert address in fake.cuda.alive  # the capsule keeps it
    del capsule
    gc.collect()
    assert address not in fake.cuda.alive


def test_streams_of_other_libraries_are_waited_for(fake, tmp_path):
    engine = open_engine(fake, tmp_path)
    old = OnGpu(fake.cuda, images(1), version=2)
    del old.__cuda_array_interface__["stream"]
    for array, waits in (
        (OnGpu(fake.cuda, images(1)), []),
        (OnGpu(fake.cuda, images(1), stream=77), [77]),
        (old, [1]),
    ):
        fake.cuda.waited.clear()
        engine.run_on_device(array)
        assert [other for _, other in fake.cuda.waited] == waits
    by_dlpack = ByDlpack(fake.cuda, images(1))
    engine.run_on_device(by_dlpack)
    assert by_dlpack.stream in fake.cuda.streams  # the library makes this stream wait


def test_arrays_that_cannot_be_used(fake, tmp_path):
    engine = open_engine(fake, tmp_path)
    elsewhere, on_cpu = ByDlpack(fake.cuda, images(1)), ByDlpack(fake.cuda, images(1))
    elsewhere.device, on_cpu.device = (CUDA, 3), (1, 0)
    wrong = {
        "takes uint8 N×32×48×3, got float32": OnGpu(fake.cuda, np.zeros((1, 32, 48, 3), np.float32)),
        "takes uint8 N×32×48×3, got uint8 1×48×32×3": OnGpu(fake.cuda, np.zeros((1, 48, 32, 3), np.uint8)),
        "takes at most 4 images on the GPU, got 5": OnGpu(fake.cuda, images(5)),
        "make the array contiguous": OnGpu(fake.cuda, images(1), strides=(1, 2, 3, 4)),
        "is on GPU 3, the engine on GPU 0.* device=3": elsewhere,
        "not in GPU memory; give it to run": on_cpu,
        "not in GPU memory": images(1),
        "has neither __dlpack__ nor __cuda_array_interface__": type("Other", (), {"shape": (1,)})(),
    }
    for message, array in wrong.items():
        with pytest.raises(UserError, match=message):
            engine.run_on_device(array)
    assert_same(engine.run(images(1)), fake.oracle.run(images(1)))


def test_a_gpu_that_shares_the_cpus_memory_copies_nothing(request, tmp_path, fake):
    fake.cuda = MemoryCuda(type(GPU)(**vars(GPU) | {"integrated": True}))
    engine = open_engine(fake, tmp_path)
    for count in (1, 3, 2):
        assert_same(engine.run(images(count)), fake.oracle.run(images(count)))
    assert not {"to_device", "to_host", "malloc"} & set(fake.cuda.calls)
    first = engine.run(images(2))
    engine.run(images(2, seed=5))
    engine.close()
    assert_same(first, fake.oracle.run(images(2)))
    assert not fake.cuda.alive


def test_labels_alone_are_copied_back(fake, tmp_path):
    engine = open_engine(fake, tmp_path, GpuOptions(logits=False))
    outputs = engine.run(images(2))
    assert list(outputs) == ["labels"]
    np.testing.assert_array_equal(outputs["labels"], fake.oracle.run(images(2))["labels"])
    assert fake.cuda.calls.count("to_host") == 1


def test_outputs_that_nobody_needs_are_not_copied(tmp_path):
    make_bundle(tmp_path / "bundle")
    fake = FakeTensorRT(
        library(LIBRARIES[0]), tmp_path / "bundle" / MODEL, TENSORS | {"extra": ("FLOAT", (-1, 5), False)}
    )
    open_engine(fake, tmp_path).run(images(1))
    assert fake.cuda.calls.count("to_host") == 2


class TestModels:
    """`logits=False` and arrays on the GPU by `deploy.load`; the fixture `library` is a machine with a GPU."""

    def test_labels_and_no_probabilities(self, bundle, library):
        add_engine(bundle)
        model = deploy.load(bundle, "tensorrt", logits=False)
        expected = deploy.load(bundle, "onnxruntime")(make_image())
        result = model(make_image())
        np.testing.assert_array_equal(result.labels, expected.labels)
        np.testing.assert_array_equal(model.batch([make_image()])[0].labels, expected.labels)
        with pytest.raises(UserError, match="left on the GPU; load the bundle without logits=False"):
            _ = result.probabilities

    def test_where_the_logits_decide_they_are_needed(self, tmp_path):
        make_bundle(tmp_path / "sar", "sar")
        set_decision(tmp_path / "sar", 0.4, None)
        with pytest.raises(UserError, match="logits=False: its threshold is applied to them"):
            deploy.load(tmp_path / "sar", logits=False)
        make_bundle(tmp_path / "tiles", resize="tile")
        with pytest.raises(UserError, match="logits=False: tiles are blended"):
            deploy.load(tmp_path / "tiles", logits=False)

    def test_arrays_on_the_gpu(self, bundle, library):
        add_engine(bundle)
        model = deploy.load(bundle, "tensorrt")
        outputs = model.engine.run_on_device(OnGpu(library.cuda, images(1)))
        np.testing.assert_array_equal(
            read(library, outputs["labels"]), library.oracle.run(images(1))["labels"]
        )
        with pytest.raises(UserError, match=r"onnxruntime fp32: runs on the CPU; give run\(\) a numpy array"):
            deploy.load(bundle, "onnxruntime").engine.run_on_device(images(1))
