"""The INT8 model for TensorRT: nothing between operators that fuse, and float16 for what is not INT8."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from deploy.quantize.graph import constants
from deploy.quantize.qdq import insert
from deploy.quantize.tensorrt_form import tensorrt_form
from tests.deploy.quantize.nets import Net, images, operators, ranges_of, residual_net, run
from tests.deploy.quantize.placement import misplaced


@pytest.fixture(scope="module")
def fp32():
    return residual_net(width=32)


@pytest.fixture(scope="module")
def s8(fp32):
    return insert(fp32, ranges_of(fp32, images(), 1.2))


def made_by(model):
    """By tensor, the kind of its operator; and the inputs of every sum, as such kinds."""
    nodes = onnx.load_model_from_string(model).graph.node
    made = {output: node.op_type for node in nodes for output in node.output}
    return [[made[name] for name in node.input] for node in nodes if node.op_type == "Add"]


def test_the_complete_form_is_misplaced_and_this_one_is_not(s8):
    wrong = misplaced(s8)
    assert sum(name.endswith("Conv → Q → DQ → Add") for name in wrong) == 3
    assert sum(name.endswith("in float32") for name in wrong) > 20
    assert misplaced(tensorrt_form(s8)) == []


def test_a_sum_reads_one_convolution_directly_and_the_residual_from_its_grid(s8):
    assert made_by(s8) == [["DequantizeLinear"] * 2] * 3
    assert made_by(tensorrt_form(s8)) == [["Conv", "DequantizeLinear"]] * 3
    lost = Counter(operators(s8)) - Counter(operators(tensorrt_form(s8)))
    assert lost == {"QuantizeLinear": 3, "DequantizeLinear": 3}


@pytest.mark.parametrize("swapped", [False, True])
def test_of_two_convolutions_the_deeper_one_is_read_directly(swapped):
    """Whatever their order in the file and in the sum."""
    net = Net()
    x = net.op("Relu", net.conv(net.image(), "stem", 3, 8))
    down = net.conv(x, "down", 8, 8, 1) if swapped else ""
    y = net.conv(net.op("Relu", net.conv(x, "first", 8, 8)), "second", 8, 8)
    down = down or net.conv(x, "down", 8, 8, 1)
    total = net.op("Add", *((down, y) if swapped else (y, down)))
    model = net.model(net.conv(net.op("Relu", total), "classifier", 8, 5, 1))
    form = tensorrt_form(insert(model, ranges_of(model, images(2))))
    (add,) = (node for node in onnx.load_model_from_string(form).graph.node if node.op_type == "Add")
    assert list(add.input) == ([f"{down}.rounded", y] if swapped else [y, f"{down}.rounded"])


def test_a_convolution_that_something_else_reads_keeps_its_pair():
    net = Net()
    x = net.op("Relu", net.conv(net.image(), "stem", 3, 8))
    y = net.conv(x, "shared", 8, 8)
    total = net.op("Add", y, x)
    model = net.model(net.conv(net.op("Concat", total, y, axis=1), "classifier", 16, 5, 1))
    form = tensorrt_form(insert(model, ranges_of(model, images(2))))
    assert made_by(form) == [["DequantizeLinear"] * 2]


def test_sums_without_a_convolution_keep_both_pairs():
    """They run as sums of integers."""
    net = Net()
    x = net.op("Relu", net.conv(net.image(), "stem", 3, 8))
    y = net.op("Relu", net.conv(x, "other", 8, 8))
    model = net.model(net.conv(net.op("Add", x, y), "classifier", 8, 5, 1))
    assert made_by(tensorrt_form(insert(model, ranges_of(model, images(2))))) == [["DequantizeLinear"] * 2]


def test_an_activation_in_float_reads_its_convolution_directly():
    net = Net()
    y = net.conv(net.image(), "stem", 3, 8)
    x = net.op("Mul", y, net.op("Sigmoid", y))
    model = net.model(net.conv(x, "classifier", 8, 5, 1))
    s8 = insert(model, ranges_of(model, images(2)))
    form = tensorrt_form(s8)
    assert operators(s8).count("QuantizeLinear") == 3
    assert operators(form).count("QuantizeLinear") == 2  # the image, and the input of the classifier
    assert misplaced(form) == []
    assert len(misplaced(s8)) > 1


def test_layers_left_in_float_are_half(fp32):
    kept = ["backbone.layer1.0.conv2", "pyramid.direct", "backbone.layer2.0.add"]
    form = tensorrt_form(insert(fp32, ranges_of(fp32, images(2)), kept))
    kinds = {
        name: tensor.data_type for name, tensor in constants(onnx.load_model_from_string(form).graph).items()
    }
    assert kinds["network.pyramid.direct.weight.half"] == TensorProto.FLOAT16
    assert kinds["classifier.weight.int8"] == TensorProto.INT8
    assert misplaced(form) == []
    run(form, images(1))


def test_both_forms_have_the_same_grids(s8):
    """Scales are float16 numbers, so their conversion changes nothing."""
    before = constants(onnx.load_model_from_string(s8).graph)
    half = constants(onnx.load_model_from_string(tensorrt_form(s8)).graph)
    scales = [name for name in half if name.endswith(".scale.half")]
    assert len(scales) > 20
    for name in scales:
        np.testing.assert_array_equal(
            onnx.numpy_helper.to_array(half[name]).astype(np.float32),
            onnx.numpy_helper.to_array(before[name.removesuffix(".half")]),
        )


def test_it_computes_what_the_complete_form_does_with_fewer_roundings(fp32, s8):
    exact = run(fp32, images())[1]
    errors = [
        np.sqrt(np.mean((run(model, images(), optimize=False)[1] - exact) ** 2))
        for model in (s8, tensorrt_form(s8))
    ]
    assert errors[1] < 1.05 * errors[0]
    assert run(tensorrt_form(s8), images(1))[1].dtype == np.float32


def test_scales_that_float16_cannot_divide_by_stay_in_float32():
    """1 / scale would be infinite, so the pair of a tensor with tiny values is float32."""
    net = Net()
    x = net.op("Relu", net.conv(net.image(), "stem", 3, 8))
    net.constants["network.stem.weight"] *= 1e-5
    net.constants["network.stem.bias"] *= 1e-5
    y = net.conv(x, "after", 8, 8)
    net.constants["network.after.weight"] *= 1e5
    model = net.model(net.conv(net.op("Relu", y), "classifier", 8, 5, 1))
    form = tensorrt_form(insert(model, ranges_of(model, images())))
    values = constants(onnx.load_model_from_string(form).graph)
    kinds = [
        values[node.input[1]].data_type
        for node in onnx.load_model_from_string(form).graph.node
        if node.op_type == "QuantizeLinear"
    ]
    assert kinds == [TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.FLOAT16]  # image, stem, after
    labels = run(model, images())[0]
    assert np.mean(labels == run(form, images())[0]) > 0.9


@pytest.mark.parametrize("opset", [17, 18])
def test_an_opset_without_half_scales_is_raised(opset):
    """Casts between DQ and convolution would keep them apart."""
    net = Net()
    x = net.op("Relu", net.conv(net.image(), "stem", 3, 8))
    mean = net.op("ReduceMean", x, axes=[2, 3]) if opset < 18 else net.op("GlobalAveragePool", x)
    model = net.model(net.conv(net.op("Add", x, mean), "classifier", 8, 5, 1), opset=opset)
    form = tensorrt_form(insert(model, ranges_of(model, images(2))))
    assert onnx.load_model_from_string(form).opset_import[0].version == 19
    assert misplaced(form) == []
    nodes = onnx.load_model_from_string(form).graph.node
    made = {output: node.op_type for node in nodes for output in node.output}
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    assert {made[name] for node in convolutions for name in node.input[:2]} == {"DequantizeLinear"}
    assert np.mean(run(form, images(2))[0] == run(model, images(2))[0]) > 0.9


def test_a_constant_beyond_float16_leaves_its_operator_in_float32():
    net = Net()
    x = net.op("Relu", net.conv(net.image(), "stem", 3, 8))
    x = net.op("Mul", x, net.constant("huge", np.full((8, 1, 1), 1e5)))
    x = net.op("Mul", x, net.constant("tiny", np.full((8, 1, 1), 1e-5)))
    model = net.model(net.conv(x, "classifier", 8, 5, 1))
    form = tensorrt_form(insert(model, ranges_of(model, images())))
    assert np.mean(run(model, images())[0] == run(form, images())[0]) > 0.95


def test_the_same_input_gives_the_same_bytes(s8):
    assert tensorrt_form(s8) == tensorrt_form(s8)
