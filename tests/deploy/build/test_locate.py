"""Where an engine goes wrong: ONNX Runtime plays the engine, with a network that is broken on purpose."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.build import locate as module
from deploy.build.locate import LIMITS, difference, locate, text
from deploy.quantize.half import to_fp16
from deploy.quantize.marks import candidates, marked
from deploy.quantize.qdq import insert, layers
from deploy.quantize.simulation import simulated
from deploy.quantize.tensorrt_form import tensorrt_form
from tests.deploy.quantize.nets import residual_net

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), np.uint8)


@pytest.fixture(scope="module")
def network():
    return residual_net()


def on_cpu(model):
    return simulated(model).all_outputs(IMAGES)


def broken(layer, factor=3.0):
    """ONNX Runtime, with a device whose weights of one convolution are wrong."""

    def run(model):
        proto = onnx.load_model_from_string(model)
        for tensor in proto.graph.initializer:
            if tensor.name == f"network.{layer}.weight":
                tensor.CopyFrom(numpy_helper.from_array(factor * numpy_helper.to_array(tensor), tensor.name))
                return simulated(proto.SerializeToString()).all_outputs(IMAGES)
        raise AssertionError(layer)

    return run


def computes(model, layer):
    """The tensor that a convolution computes."""
    nodes = onnx.load_model_from_string(model).graph.node
    return next(n.output[0] for n in nodes if n.op_type == "Conv" and n.input[1] == f"network.{layer}.weight")


@pytest.mark.parametrize(
    "layer", ["backbone.conv1", "backbone.layer1.0.conv2", "backbone.layer2.0.downsample.0"]
)
@pytest.mark.parametrize("marks", [1, 6])
def test_the_broken_layer_is_named(network, layer, marks, monkeypatch):
    monkeypatch.setattr(module, "MARKS", marks)
    lines = []
    found = locate(network, broken(layer), on_cpu, LIMITS["fp32"], lines.append)
    assert found.first.tensor == computes(network, layer)
    assert found.first.difference == pytest.approx(2, rel=0.2)  # three times as large, apart from the bias
    assert found.last_good is None or found.last_good.difference == 0
    assert len(lines) == found.rounds <= (2 if marks == 6 else 6)
    assert f"the first that differs: {found.first.tensor}, computed by Conv" in text(found)


def test_an_infinity_is_a_difference(network):
    found = locate(network, broken("backbone.layer1.0.conv1", np.inf), on_cpu, LIMITS["fp32"], lambda _: None)
    assert found.first.tensor == computes(network, "backbone.layer1.0.conv1")
    assert found.first.difference is None
    assert "(not finite)" in text(found)


def test_a_network_that_is_right(network):
    found = locate(network, on_cpu, on_cpu, LIMITS["fp32"], lambda _: None)
    assert (found.first, found.rounds) == (None, 1)
    assert "no tensor differs by more than 1 %" in text(found)


def test_only_what_follows_the_last_tensor_is_wrong(network):
    def run(model):
        outputs = on_cpu(model)
        return outputs | {"logits": outputs["logits"] + 1}

    assert locate(network, run, on_cpu, LIMITS["fp32"], lambda _: None).first.tensor == "logits"

    def wrong_labels(model):
        outputs = on_cpu(model)
        return outputs | {"labels": outputs["labels"] + 1}

    found = locate(network, wrong_labels, on_cpu, LIMITS["fp32"], lambda _: None)
    assert (found.first.tensor, found.first.difference, found.rounds) == ("labels", 1, 1)


def quantized(model):
    found = layers(model)
    tensors = dict.fromkeys(tensor for layer in found for tensor in layer.tensors)
    maps = OrtEngine(marked(model, list(tensors)[1:])).all_outputs(IMAGES)
    return tensorrt_form(
        insert(model, {name: float(np.abs(maps.get(name, 2.0)).max()) for name in tensors}, ())
    )


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_files_of_other_precisions(network, precision):
    """Marked in the very file that was compiled; kernels that round in another order count as equal."""
    model = to_fp16(network) if precision == "fp16" else quantized(network)
    names = [one.tensor for one in candidates(model)]
    assert len(names) > 10
    outputs = on_cpu(marked(model, names))
    assert {outputs[name].dtype for name in names} <= {np.dtype(np.float16), np.dtype(np.float32)}
    unoptimized = lambda model: OrtEngine(model, optimize=False, int8_kernels=False).all_outputs(IMAGES)  # noqa: E731
    assert locate(model, unoptimized, on_cpu, LIMITS[precision], lambda _: None).first is None


def test_what_may_be_marked(network):
    """Neither sizes and constants, nor rounded values."""
    proto = onnx.load_model_from_string(network)
    operators = {one.operator.split()[0] for one in candidates(network)}
    assert {"Conv", "Relu", "Add", "MaxPool"} <= operators
    assert operators.isdisjoint({"Shape", "ArgMax", "QuantizeLinear", "DequantizeLinear"})
    assert "logits" not in [one.tensor for one in candidates(network)]
    for one in proto.graph.node:
        if one.op_type == "Conv":
            one.name = ""
    assert "Conv" in [one.operator for one in candidates(proto.SerializeToString())]


def test_difference():
    ones = np.ones((2, 3), np.float16)
    assert difference(ones, ones) == 0
    assert difference(1.5 * ones, ones) == pytest.approx(0.5)
    assert (
        difference(ones, 0 * ones) == difference(np.inf * ones, ones) == difference(ones[:1], ones) == np.inf
    )
    assert difference(np.array([np.nan, 1.0]), np.array([np.nan, 1.0])) == 0  # as the reference says
