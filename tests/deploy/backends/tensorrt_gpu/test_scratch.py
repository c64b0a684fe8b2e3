"""Engines that are compiled with more outputs, to look inside: on the fake GPU."""

from contextlib import closing

import numpy as np
import onnx
import pytest

from deploy.backends.gpu_options import DEFAULT
from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.backends.tensorrt_gpu import scratch
from deploy.backends.tensorrt_gpu.compile import Compiled
from deploy.backends.tensorrt_gpu.options import BuildOptions
from deploy.build.locate import locate_in_engine
from deploy.bundle.golden_file import read_golden
from deploy.bundle.manifest import MODEL
from deploy.errors import UserError
from deploy.quantize.marks import candidates, marked
from tests.deploy.backends.tensorrt_gpu.trt_fakes import ENGINE, LIBRARIES, TENSORS, FakeTensorRT, library
from tests.deploy.tiny import make_bundle

OPTIONS = BuildOptions("tensorrt", "fp32", batch=(1, 2, 4))


@pytest.fixture(params=LIBRARIES)
def fake(request, tmp_path, monkeypatch):
    """TensorRT that compiles what it is given; its engine has the file's outputs, and computes `fake.computes`."""
    make_bundle(tmp_path / "bundle")
    fake = FakeTensorRT(library(request.param), tmp_path / "bundle" / MODEL)
    fake.computes, fake.built = lambda model: OrtEngine(model).all_outputs, 0

    def compile_network(trt, model, *_):
        outputs = onnx.load_model_from_string(model).graph.output
        kinds = {one.name: [dim.dim_value for dim in one.type.tensor_type.shape.dim][1:] for one in outputs}
        more = {name: ("FLOAT", (-1, *sizes), False) for name, sizes in kinds.items() if name not in TENSORS}
        fake.tensors, fake.network, fake.built = TENSORS | more, fake.computes(model), fake.built + 1
        return Compiled(memoryview(ENGINE), None, None, 0.1)

    monkeypatch.setattr(scratch, "compile_network", compile_network)
    monkeypatch.setattr(scratch, "check_machine", lambda options: (fake.module, ("current",), fake.cuda))
    return fake


def test_all_outputs_come_back(fake, tmp_path):
    path = tmp_path / "bundle" / MODEL
    model = marked(path.read_bytes(), [one.tensor for one in candidates(path.read_bytes())])
    images = read_golden(tmp_path / "bundle")["inputs"].repeat(
        3, axis=0
    )  # more than the engine takes at a time
    options = BuildOptions(fake.backend, "fp32", batch=(1, 2, 4))
    with closing(scratch.compile_and_open(model, path, options, DEFAULT)) as engine:
        assert engine.largest_batch == 4
        found = engine.all_outputs(images)
        assert set(engine.run(images)) == {"labels", "logits"}
    expected = OrtEngine(model).all_outputs(images)
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    assert not fake.cuda.alive


@pytest.mark.parametrize("wrong", ["", "centered", "normal"])
def test_the_tensor_that_differs_is_named(fake, tmp_path, capsys, wrong):
    """A GPU that computes one tensor wrong, and what follows."""

    def computes(model):
        proto = onnx.load_model_from_string(model)
        for node in proto.graph.node:
            if wrong in node.output:
                node.op_type = "Add"  # instead of a difference or quotient
        return OrtEngine(proto.SerializeToString()).all_outputs

    fake.computes = computes
    located = locate_in_engine(tmp_path / "bundle", BuildOptions(fake.backend, "fp32"), DEFAULT)
    assert (located.first.tensor if located.first else "") == wrong
    assert located.rounds == fake.built
    out = capsys.readouterr().out
    assert (f"the first that differs: {wrong}, computed by" in out) == bool(wrong)
    written = tmp_path / "bundle" / "engines" / f"{fake.backend}-fp32.located.json"
    assert f'"rounds": {fake.built}' in written.read_text()
    assert not fake.cuda.alive


def test_without_a_gpu_nothing_is_compiled(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "check_machine", lambda options: (fake.module, ("sm86",), None))
    with pytest.raises(UserError, match=r"model\.onnx: the engine is for another machine"):
        locate_in_engine(tmp_path / "bundle", OPTIONS, DEFAULT)
    assert fake.built == 0
