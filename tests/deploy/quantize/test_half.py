"""The half-precision model: typed throughout, with unchanged outputs."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from deploy.errors import UserError
from deploy.quantize.half import to_fp16
from tests.deploy.quantize.nets import Net, images, operators, residual_net, run


@pytest.fixture(scope="module")
def fp32():
    return residual_net(width=32)


def types(model):
    graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(model), strict_mode=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def test_everything_from_the_first_convolution_to_the_logits_is_half(fp32):
    half = to_fp16(fp32)
    graph, kinds = onnx.load_model_from_string(half).graph, types(half)
    weights = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in ("Conv", "Relu", "Add", "MaxPool", "MatMul", "AveragePool"):
            assert {(kinds | weights)[name] for name in node.input} == {TensorProto.FLOAT16}, node.name
    assert [kinds[name] for name in ("image", "logits", "labels")] == [
        TensorProto.UINT8,
        TensorProto.FLOAT,
        TensorProto.UINT8,
    ]
    assert Counter(operators(half))["Cast"] == Counter(operators(fp32))["Cast"] + 2
    assert len(half) < 0.55 * len(fp32)


def test_labels_stay(fp32):
    labels, logits = run(fp32, images())
    half_labels, half_logits = run(to_fp16(fp32), images())
    assert np.mean(labels == half_labels) >= 0.99
    assert np.abs(logits - half_logits).max() < 0.01 * logits.std()
    assert half_logits.dtype == np.float32


def test_the_same_input_gives_the_same_bytes(fp32):
    assert to_fp16(fp32) == to_fp16(fp32)


def test_the_normalization_and_sums_over_maps_stay_in_float32():
    """Values around 3000 fit into fp16, but their sum over the 1536 pixels does not."""
    net = Net()
    normal = net.image()
    x = net.conv(normal, "stem", 3, 8)
    net.constants["network.stem.bias"][:] = 3e3
    mean = net.op("ReduceMean", x, net.constant("axes", [2, 3], np.int64), keepdims=1)
    model = net.model(net.conv(net.op("Sub", x, mean), "classifier", 8, 5, 1))
    half = to_fp16(model)
    kinds = types(half)
    assert kinds[normal] == kinds[mean] == TensorProto.FLOAT
    assert kinds[x] == TensorProto.FLOAT16
    logits, half_logits = run(model, images(2))[1], run(half, images(2))[1]
    assert np.abs(logits - half_logits).max() < 3  # one step of fp16 is 2 at 3000
    assert half_logits.std() == pytest.approx(logits.std(), rel=0.1)


def test_enlarging_inside_the_network_keeps_its_scales():
    net = Net()
    x = net.op("Relu", net.conv(net.image(), "stem", 3, 8, strides=[2, 2]))
    large = net.op("Resize", x, "", net.constant("scales", [1, 1, 2, 2]), mode="linear")
    model = net.model(net.conv(large, "classifier", 8, 5, 1))
    half = to_fp16(model)
    scales = {t.name: t for t in onnx.load_model_from_string(half).graph.initializer}["scales"]
    assert numpy_helper.to_array(scales).dtype == np.float32
    assert np.mean(run(model, images())[0] == run(half, images())[0]) >= 0.99


def test_a_weight_beyond_fp16_is_named():
    net = Net()
    model = net.model(net.conv(net.image(), "classifier", 3, 5))
    proto = onnx.load_model_from_string(model)
    for wrong in (7e4, np.nan):
        bias = next(t for t in proto.graph.initializer if t.name == "network.classifier.bias")
        bias.CopyFrom(numpy_helper.from_array(np.array([0, 0, wrong, 0, 0], np.float32), bias.name))
        with pytest.raises(UserError, match=r"tensor network.classifier.bias has values beyond ±65504"):
            to_fp16(proto.SerializeToString())


def test_a_normalization_in_large_units_stays_in_float32():
    """Raw values of sensors go beyond ±65504; only what runs in half precision has to fit."""
    net = Net()
    model = net.model(net.conv(net.image(), "classifier", 3, 5))
    proto = onnx.load_model_from_string(model)
    mean = next(t for t in proto.graph.initializer if t.name == "mean")
    mean.CopyFrom(numpy_helper.from_array(np.array([1e5, 0, 0], np.float32), "mean"))
    values = {
        t.name: t for t in onnx.load_model_from_string(to_fp16(proto.SerializeToString())).graph.initializer
    }
    assert values["mean"].data_type == TensorProto.FLOAT


def test_a_model_that_is_not_fp32_is_refused(fp32):
    with pytest.raises(UserError, match="half precision already"):
        to_fp16(to_fp16(fp32))
    with pytest.raises(UserError, match="the model is empty"):
        to_fp16(b"")
