"""What TensorRT-RTX compiles at run time is compiled once: shared by all contexts, and kept for the next start."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from deploy.backends.gpu_options import GpuOptions
from deploy.backends.tensorrt_gpu.rtx_kernels import kernel_file
from deploy.bundle.manifest import MODEL
from tests.deploy.backends.tensorrt_gpu.trt_fakes import (
    FakeTensorRT,
    assert_same,
    images,
    library,
    open_engine,
)
from tests.deploy.tiny import make_bundle


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def fake(tmp_path, cache):
    make_bundle(tmp_path / "bundle")
    return FakeTensorRT(library("tensorrt_rtx"), tmp_path / "bundle" / MODEL)


def test_a_second_start_compiles_nothing(fake, tmp_path, cache):
    engine = open_engine(fake, tmp_path)
    for batch in (1, 3, 1, 3):
        engine.run(images(batch))
    assert fake.compiled == [1, 3]
    engine.close()
    again = open_engine(fake, tmp_path)
    assert_same(again.run(images(3)), fake.oracle.run(images(3)))
    assert fake.compiled == [1, 3]
    [kept] = cache.glob("*.blob")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert not list((tmp_path / "engines").glob("*.blob"))


def test_kernels_are_kept_even_if_the_process_is_killed(fake, tmp_path):
    engine = open_engine(fake, tmp_path)
    engine.run(images(2))  # and is not closed
    open_engine(fake, tmp_path).run(images(2))
    assert fake.compiled == [2]


def test_all_contexts_share_them(fake, tmp_path):
    engine = open_engine(fake, tmp_path)
    engine.run(images(1))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(engine.run, [images(1)] * 16))
    assert fake.compiled == [1]
    configs = {
        id(context.options["runtime_config"].set_runtime_cache.call_args.args[0]) for context in fake.contexts
    }
    assert len(configs) == 1


def test_kernels_of_another_driver_are_replaced(fake, tmp_path):
    open_engine(fake, tmp_path).run(images(1))
    fake.machine = b"after an update"
    open_engine(fake, tmp_path).run(images(1))
    assert fake.compiled == [1, 1]
    open_engine(fake, tmp_path).run(images(1))
    assert fake.compiled == [1, 1]


def test_nothing_new_is_not_written_again(fake, tmp_path, cache):
    open_engine(fake, tmp_path).run(images(1))
    [kept] = cache.glob("*.blob")
    before = kept.stat().st_mtime_ns, kept.stat().st_ino
    engine = open_engine(fake, tmp_path)
    engine.run(images(1))
    engine.close()
    assert (kept.stat().st_mtime_ns, kept.stat().st_ino) == before


def test_damaged_or_unwritable_files_do_no_harm(fake, tmp_path, cache):
    cache.write_text("a file where the folder should be")
    engine = open_engine(fake, tmp_path)
    assert_same(engine.run(images(1)), fake.oracle.run(images(1)))
    engine.close()


def test_settings(fake, tmp_path):
    open_engine(fake, tmp_path, GpuOptions(eager=True, cuda_graph=True)).run(images(1))
    open_engine(fake, tmp_path).run(images(1))
    one, other = (context.options["runtime_config"] for context in fake.contexts)
    real = fake.real
    strategy = real.DynamicShapesKernelSpecializationStrategy.EAGER
    assert one.dynamic_shapes_kernel_specialization_strategy == strategy
    assert one.cuda_graph_strategy == real.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    assert other.dynamic_shapes_kernel_specialization_strategy != strategy
    assert other.cuda_graph_strategy != real.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE


def test_each_engine_version_and_gpu_has_a_file_of_its_own():
    assert (
        len({kernel_file("a", "1.7", "x"), kernel_file("b", "1.7", "x"), kernel_file("a", "1.8", "x")}) == 3
    )
    assert kernel_file("a", "1.7", "x") == kernel_file("a", "1.7", "x") != kernel_file("a", "1.7", "y")
