"""Engines of a network's core: contract-tested, not run on a DLA."""

import numpy as np
import pytest

from deploy.backends.core import CORE, CORE_OUTPUTS
from deploy.backends.gpu_options import GpuOptions
from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.backends.tensorrt_gpu import builder, cuda
from deploy.backends.tensorrt_gpu import engine as trt
from deploy.backends.tensorrt_gpu.core_engine import CoreEngine
from deploy.backends.tensorrt_gpu.engine import build_command
from deploy.backends.tensorrt_gpu.options import BuildOptions
from deploy.bundle.bundle_files import read_manifest, write_bundle
from deploy.bundle.engine_files import read_sidecar
from deploy.bundle.manifest import FP16, MODEL
from deploy.errors import UserError
from deploy.lint.dla_alone import core_for_dla
from deploy.quantize.core_form import core_form
from tests.deploy.backends.tensorrt_gpu.builder_fakes import ORIN, Fake
from tests.deploy.backends.tensorrt_gpu.engines import add_engine
from tests.deploy.backends.tensorrt_gpu.gpu_fakes import GPU, MemoryCuda
from tests.deploy.backends.tensorrt_gpu.trt_fakes import FakeTensorRT, images, library
from tests.deploy.quantize.cores import core_logits
from tests.deploy.tiny import make_bundle

ALONE = BuildOptions("tensorrt", "fp16", dla_core=0, allow_gpu_fallback=False)
BUILT = {"dla_core": 0, "allow_gpu_fallback": False, CORE: "checksum"}
TENSORS = {"image": ("HALF", (1, 3, 32, 48), True), "logits": ("HALF", (1, 3, 4, 6), False)}


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "bundle"
    manifest = make_bundle(folder)
    model = (folder / MODEL).read_bytes()
    write_bundle(folder, manifest, {MODEL: model, FP16: model})
    return folder


@pytest.fixture
def opened(bundle, monkeypatch):
    """Opens the engine of a fake TensorRT that computes the core by ONNX Runtime."""
    fake = FakeTensorRT(library("tensorrt 11.4"), bundle / MODEL, TENSORS)
    core = core_form((bundle / MODEL).read_bytes(), read_manifest(bundle).input, 1)
    fake.network = lambda batch: {"logits": core_logits(core, batch)}
    monkeypatch.setattr(trt, "open_cuda", lambda provider, device: fake.cuda)
    monkeypatch.setattr(trt, "import_tensorrt", lambda backend: fake.module)
    add_engine(
        bundle, "alone", precision="fp16", batch=(1, 1, 1), options=BUILT, version=fake.real.__version__
    )
    return lambda **options: trt.open_trt(bundle, "tensorrt", "fp16", options=GpuOptions(**options))


def test_it_gives_what_the_whole_network_does(bundle, opened):
    engine = opened()
    assert isinstance(engine, CoreEngine)
    whole = OrtEngine(bundle / MODEL, threads=1).run(images(3))
    outputs = engine.run(images(3))
    assert {name: array.dtype for name, array in outputs.items()} == {
        "labels": np.uint8,
        "logits": np.float32,
    }
    assert outputs["labels"].shape == whole["labels"].shape
    assert (outputs["labels"] == whole["labels"]).mean() > 0.995  # half precision
    np.testing.assert_allclose(outputs["logits"], whole["logits"], atol=5e-3)
    assert list(engine.all_outputs(images(1))) == [*CORE_OUTPUTS]
    assert len(engine.time(images(1), 2)) == 2
    assert list(opened(logits=False).run(images(1))) == ["labels"]


def test_what_it_does_not_do_is_refused(opened):
    engine = opened()
    with pytest.raises(UserError, match=r"is for a DLA alone, and the CPU decides its labels; give run\(\)"):
        engine.run_on_device(images(1))
    with pytest.raises(UserError, match="the network takes uint8 N×32×48×3, got float32"):
        engine.run(images(1).astype(np.float32))


def test_the_core_is_compiled_and_the_sidecar_says_so(bundle, monkeypatch):
    fake, said = Fake("10.3.0", cores=1), []
    monkeypatch.setattr(cuda, "find", lambda device: MemoryCuda(ORIN))
    monkeypatch.setattr(builder, "import_tensorrt", lambda backend: fake)
    compiled, compile_network = [], builder.compile_network
    monkeypatch.setattr(
        builder,
        "compile_network",
        lambda trt, model, *rest: compiled.append(model) or compile_network(trt, model, *rest),
    )
    core = core_for_dla(bundle, ALONE)
    built = builder.build_engine(bundle, ALONE, core=core, progress=False, say=said.append)
    assert compiled == [core]
    assert "compiling the core of model.fp16.onnx" in said[0]
    sidecar = read_sidecar(built.path)
    assert len(sidecar.options[CORE]) == 64
    assert build_command(bundle, sidecar, GPU).endswith(" --dla 0 --no-gpu-fallback")
    assert builder.build_engine(bundle, ALONE, core=core, progress=False, say=said.append).reused
