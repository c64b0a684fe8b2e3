"""A network for a DLA alone: its core, or what is in it that is no layer of the DLA."""

import msgspec
import onnx
import pytest
from onnx import TensorProto, helper

from deploy.backends.tensorrt_gpu.options import BuildOptions
from deploy.bundle.bundle_files import write_bundle
from deploy.bundle.manifest import MODEL
from deploy.errors import UserError
from deploy.lint.dla_alone import core_for_dla, not_alone
from tests.deploy.tiny import WEIGHTS, make_bundle, make_manifest, make_model

ALONE = BuildOptions("tensorrt", "fp16", dla_core=0, allow_gpu_fallback=False)


def test_operators_are_named(tmp_path):
    make_bundle(tmp_path)
    why = not_alone((tmp_path / MODEL).read_bytes())
    assert "operators that no DLA runs (Cast real: Cast is not a layer of the DLA; " in why
    assert "\n" not in why


def test_a_network_that_it_runs():
    relu = helper.make_node("Relu", ["x"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, [1, 8, 4, 4]) for name in "xy"]
    graph = helper.make_graph([relu], "relu", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    assert not_alone(model.SerializeToString()) == ""


def test_the_core_of_a_bundle(tmp_path):
    make_bundle(tmp_path)
    core = onnx.load_model_from_string(core_for_dla(tmp_path, ALONE))
    assert [node.op_type for node in core.graph.node] == ["Conv"]


def test_other_tasks_have_no_core(tmp_path):
    manifest = msgspec.structs.replace(make_manifest("sar"), task="grasp")
    write_bundle(tmp_path / "b", manifest, {MODEL: make_model(manifest.input, WEIGHTS["sar"])})
    with pytest.raises(
        UserError, match=r"^--no-gpu-fallback: the maps of a grasp bundle are finished by layers"
    ):
        core_for_dla(tmp_path / "b", ALONE)
