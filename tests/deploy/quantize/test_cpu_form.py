"""The CPU form of the INT8 model: the same values, and integers where it matters."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest

from deploy.quantize.qdq import cpu_form, insert
from tests.deploy.quantize.nets import Net, images, initializers, operators, ranges_of, residual_net, run


@pytest.fixture(scope="module")
def fp32():
    return residual_net(width=32)


@pytest.fixture(scope="module")
def s8(fp32):
    return insert(fp32, ranges_of(fp32, images(), 1.2))


def test_computes_exactly_the_same_where_nothing_is_clipped(s8):
    for a, b in zip(
        run(s8, images(), optimize=False), run(cpu_form(s8), images(), optimize=False), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("form", [bytes, cpu_form], ids=["s8", "u8"])
def test_an_optimized_layer_rounds_a_few_values_to_a_neighboring_step(form):
    """Integer kernels sum exactly and round once, while the reference sums floats."""
    net = Net()
    x = net.op("Relu", net.conv(net.image(), "stem", 3, 16))
    copied = net.conv(x, "copy", 16, 16, 1, bias=False)
    net.constants["network.copy.weight"] = np.eye(16, dtype=np.float32)[:, :, None, None]
    model = net.model(copied)
    ranges = ranges_of(model, images())
    quantized = insert(model, ranges)
    _, exact = run(quantized, images(), optimize=False)
    _, fast = run(form(quantized), images())
    steps = np.round((fast - exact) / (ranges[x] / 127))
    assert np.abs(steps).max() <= 1
    assert np.mean(steps != 0) < 0.005


@pytest.mark.parametrize("form", [bytes, cpu_form], ids=["s8", "u8"])
def test_an_optimized_network_differs_by_such_roundings_only(fp32, s8, form):
    """They propagate from layer to layer, more so with few and random weights, but hardly change the labels."""
    labels, logits = run(s8, images(), optimize=False)
    fast_labels, fast_logits = run(form(s8), images())
    error = np.sqrt(np.mean((logits - fast_logits) ** 2))
    assert error < np.sqrt(np.mean((logits - run(fp32, images())[1]) ** 2))
    assert np.mean(labels == fast_labels) > 0.98


def test_zero_is_0_where_nothing_is_negative(s8):
    values, nodes = initializers(cpu_form(s8)), onnx.load_model_from_string(cpu_form(s8)).graph.node
    made = {output: node.op_type for node in nodes for output in node.output}
    for node in nodes:
        if node.op_type == "QuantizeLinear":
            positive = made[node.input[0]] in ("Relu", "MaxPool", "AveragePool")
            assert values[node.input[2]] == (0 if positive else 128), node.name
    assert values["classifier.weight.int8"].dtype == np.int8


def test_onnx_runtime_computes_in_integers(s8, tmp_path):
    file = str(tmp_path / "optimized.onnx")
    run(cpu_form(s8), images(1), dump=file)
    kinds = Counter(operators(file))
    assert kinds["QLinearConv"] == 8
    assert kinds["Conv"] + kinds["FusedConv"] == 2  # the taps, on a few cells, and the classifier
    assert kinds["QLinearAdd"] == 3
    assert not kinds["Relu"]
    assert not kinds["Add"]


def test_channels_that_died_keep_their_bias():
    """Their weights are almost 0; in units of their own scale the bias would be too coarse, or too large for INT32."""
    net = Net()
    x = net.op("Relu", net.conv(net.image(), "stem", 3, 8))
    x = net.conv(x, "dead", 8, 8)
    net.constants["network.dead.weight"][:3] = 0
    net.constants["network.dead.weight"][3:5] *= 1e-12
    net.constants["network.dead.bias"][:] = [0.77, -0.31, 0, 0.5, -0.9, 0.1, 0.2, 0.3]
    y = net.conv(x, "other", 8, 8)
    model = net.model(net.conv(net.op("Relu", net.op("Add", x, y)), "classifier", 8, 5))
    quantized = insert(model, ranges_of(model, images(), 1.2))
    _, logits = run(quantized, images(), optimize=False)
    _, fast = run(cpu_form(quantized), images())
    assert np.sqrt(np.mean((logits - fast) ** 2)) < 0.01 * logits.std()


def test_relu6_needs_no_float_convolution(tmp_path):
    net = Net()
    low, high = net.constant("low", 0.0), net.constant("high", 1.5)
    x = net.op("Clip", net.conv(net.image(), "stem", 3, 8), low, high)
    x = net.op("Clip", net.conv(x, "depthwise", 1, 8, group=8), low, high)
    model = net.model(net.conv(x, "classifier", 8, 5, 1))
    quantized = insert(model, ranges_of(model, images()))
    grids = [n for n in onnx.load_model_from_string(quantized).graph.node if n.op_type == "QuantizeLinear"]
    assert len(grids) == 5  # image; before and after each clipping
    for a, b in zip(run(quantized, images(), False), run(cpu_form(quantized), images(), False), strict=True):
        np.testing.assert_array_equal(a, b)
    file = str(tmp_path / "optimized.onnx")
    run(cpu_form(quantized), images(1), dump=file)
    assert Counter(operators(file))["QLinearConv"] == 2

    # The grid before the clipping changes nothing: without it the values are the same.
    proto = onnx.load_model_from_string(quantized)
    for node in proto.graph.node:
        if node.op_type == "Clip":
            node.input[0] = node.input[0].removesuffix(".rounded")
    for a, b in zip(
        run(quantized, images(), False), run(proto.SerializeToString(), images(), False), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_other_activations_need_no_float_convolution(tmp_path):
    net = Net()
    x = net.op("HardSwish", net.conv(net.image(), "stem", 3, 8))
    x = net.op("Relu", net.conv(x, "depthwise", 1, 8, group=8))
    gate = net.op("HardSigmoid", net.conv(net.op("GlobalAveragePool", x), "se", 8, 8, 1))
    x = net.op("Mul", x, gate)
    model = net.model(net.conv(x, "classifier", 8, 5, 1))
    quantized = cpu_form(insert(model, ranges_of(model, images())))
    file = str(tmp_path / "optimized.onnx")
    run(quantized, images(1), dump=file)
    kinds = Counter(operators(file))
    assert (kinds["QLinearConv"], kinds["Conv"]) == (3, 1)


def test_loads_on_the_path_for_cpus_without_vnni(s8):
    """That path rewrites the weights and fails on zero points that are shared or left out."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(cpu_form(s8), options, providers=["CPUExecutionProvider"])
    logits = np.concatenate([np.asarray(session.run(["logits"], {"image": image})[0]) for image in images()])
    np.testing.assert_allclose(logits, run(cpu_form(s8), images())[1], atol=0.02 * logits.std())
