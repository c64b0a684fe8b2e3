"""Matrix products of transformers in INT8: which ones, along which axis, and what stays in float."""

from collections import Counter

import numpy as np
import onnx
import pytest

from deploy.quantize.qdq import cpu_form, insert, layers
from deploy.quantize.tensorrt_form import tensorrt_form
from tests.deploy.quantize.nets import Net, images, initializers, operators, ranges_of, run
from tests.deploy.quantize.placement import misplaced

WIDTH = 16


def linear(net: Net, x: str, name: str, inputs: int, outputs: int) -> str:
    """A matrix product whose weight has lost its name in the export, and its bias."""
    weight = net.constant(f"val_{len(net.nodes)}", net.rng.normal(0, (1 / inputs) ** 0.5, (inputs, outputs)))
    bias = net.constant(f"network.{name}.bias", net.rng.normal(0, 0.1, outputs))
    return net.op("Add", net.op("MatMul", x, weight), bias)


def transformer(pooling: bool = True) -> bytes:
    """A patch embedding, a block of two products, attention between tokens, and pooling by a constant matrix."""
    net = Net()
    x = net.conv(net.image(), "embed", 3, WIDTH, 4, strides=[4, 4], pads=[0] * 4)
    x = net.op("Reshape", x, net.constant("to_tokens", [0, WIDTH, 96], np.int64))
    tokens = net.op("Transpose", x, perm=[0, 2, 1])
    scale, shift = net.constant("ones", np.ones(WIDTH)), net.constant("zeros", np.zeros(WIDTH))
    y = net.op("LayerNormalization", tokens, scale, shift)
    y = net.op("Gelu", linear(net, y, "block.fc1", WIDTH, 2 * WIDTH))
    tokens = net.op("Add", tokens, linear(net, y, "block.fc2", 2 * WIDTH, WIDTH))
    y = net.op("LayerNormalization", tokens, scale, shift)
    scores = net.op("Softmax", net.op("MatMul", y, net.op("Transpose", y, perm=[0, 2, 1])))
    tokens = net.op("Add", tokens, net.op("MatMul", scores, y))
    x = net.op("Transpose", tokens, perm=[0, 2, 1])
    if pooling:
        x = net.op("MatMul", x, net.constant("mean_of_all", np.full((96, 96), 1 / 96)))
    x = net.op("Reshape", x, net.constant("to_map", [0, WIDTH, 8, 12], np.int64))
    return with_ranks(net.model(net.conv(x, "classifier", WIDTH, 5, 1)))


def with_ranks(model: bytes) -> bytes:
    """The model with the sizes of its tensors, as exports have them."""
    return onnx.shape_inference.infer_shapes(onnx.load_model_from_string(model)).SerializeToString()


@pytest.fixture(scope="module")
def fp32():
    return transformer()


@pytest.fixture(scope="module")
def s8(fp32):
    return insert(fp32, ranges_of(fp32, images(), 1.1))


def test_products_with_trained_weights_are_layers(fp32):
    """Not products of two activations, matrices that pool, or sums of tokens."""
    assert [(layer.name, layer.kind) for layer in layers(fp32)] == [
        ("embed", "Conv"),
        ("block.fc1", "MatMul"),
        ("block.fc2", "MatMul"),
        ("classifier", "Conv"),
    ]


def test_weights_have_a_scale_for_each_column(s8):
    values = initializers(s8)
    for name, outputs in (("block.fc1", 2 * WIDTH), ("block.fc2", WIDTH)):
        assert values[f"{name}.weight.scale"].shape == (outputs,)
        assert (np.abs(values[f"{name}.weight.int8"]).max(0) == 127).all()
    axes = [
        node.attribute[0].i
        for node in onnx.load_model_from_string(s8).graph.node
        if node.op_type == "DequantizeLinear" and node.input[0].startswith("block.")
    ]
    assert axes == [1, 1]


def test_both_forms_stay_close(fp32, s8):
    labels = run(fp32, images())[0]
    for form in (cpu_form(s8), tensorrt_form(s8)):
        assert np.mean(labels == run(form, images())[0]) > 0.95


def test_onnx_runtime_multiplies_bytes(s8, tmp_path):
    file = str(tmp_path / "optimized.onnx")
    run(cpu_form(s8), images(1), dump=file)
    assert Counter(operators(file))["QLinearMatMul"] == 2


def test_the_form_for_tensorrt_adds_the_bias_before_it_rounds(s8):
    nodes = onnx.load_model_from_string(tensorrt_form(s8)).graph.node
    made = {output: node.op_type for node in nodes for output in node.output}
    biased = [node for node in nodes if node.op_type == "Add" and any("bias" in name for name in node.input)]
    assert [made[node.input[0]] for node in biased] == ["MatMul", "MatMul"]
    assert misplaced(tensorrt_form(s8)) == []


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm(transposed, tmp_path):
    """Squeeze and excitation with linear layers."""
    net = Net()
    x = net.op("Relu", net.conv(net.image(), "stem", 3, 8, strides=[2, 2]))
    vector = net.op("Flatten", net.op("GlobalAveragePool", x))
    weight = net.constant("network.gate.weight", net.rng.normal(0, 0.3, (8, 8)))
    gate = net.op("Gemm", vector, weight, net.constant("network.gate.bias", np.ones(8)), transB=transposed)
    gate = net.op("Reshape", net.op("Sigmoid", gate), net.constant("to_map", [0, 8, 1, 1], np.int64))
    model = net.model(net.conv(net.op("Mul", x, gate), "classifier", 8, 5, 1))
    assert [layer.kind for layer in layers(model)] == ["Conv", "Gemm", "Conv"]
    s8 = insert(model, ranges_of(model, images()))
    integers = initializers(s8)["gate.weight.int8"]
    assert (np.abs(integers).max(1 if transposed else 0) == 127).all()
    labels = run(model, images())[0]
    for form in (cpu_form(s8), tensorrt_form(s8)):
        assert np.mean(labels == run(form, images())[0]) > 0.95
    file = str(tmp_path / "optimized.onnx")
    run(cpu_form(s8), images(1), dump=file)
    assert Counter(operators(file))["QGemm"] == 1


def test_a_scaled_gemm_stays_in_float():
    net = Net()
    vector = net.op("Flatten", net.op("GlobalAveragePool", net.conv(net.image(), "stem", 3, 8)))
    weight = net.constant("network.gate.weight", net.rng.normal(0, 0.3, (8, 8)))
    x = net.op(
        "Reshape", net.op("Gemm", vector, weight, alpha=0.5), net.constant("to_map", [0, 8, 1, 1], np.int64)
    )
    assert [layer.kind for layer in layers(net.model(net.conv(x, "classifier", 8, 5, 1)))] == ["Conv", "Conv"]


def test_a_sum_that_a_normalization_reads_stays_in_float():
    """As in ConvNeXt, whose maps are arranged in another order for it."""
    net = Net()
    x = net.op("Relu", net.conv(net.image(), "stem", 3, 8))
    total = net.op("Add", x, net.conv(x, "branch", 8, 8))
    last = net.op("Transpose", total, perm=[0, 2, 3, 1])
    normal = net.op(
        "LayerNormalization", last, net.constant("ones", np.ones(8)), net.constant("zeros", np.zeros(8))
    )
    x = net.op("Transpose", normal, perm=[0, 3, 1, 2])
    found = layers(net.model(net.conv(net.op("Add", x, total), "classifier", 8, 5, 1)))
    assert [layer.name for layer in found] == ["stem", "branch", "branch.add", "classifier"]
    assert found[2].output != total
