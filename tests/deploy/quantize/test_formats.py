"""FP8: another number format of the same graph."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from deploy.lint import lint, predict_int8_coverage, read_graph
from deploy.quantize.formats import FP8
from deploy.quantize.graph import constants
from deploy.quantize.qdq import insert, layers, quantize_weight
from deploy.quantize.tensorrt_form import tensorrt_form
from tests.deploy.quantize.nets import Net, images, operators, ranges_of, residual_net, run
from tests.deploy.quantize.placement import misplaced


@pytest.fixture(scope="module")
def fp32():
    return residual_net(width=32)


@pytest.fixture(scope="module")
def fp8(fp32):
    return tensorrt_form(insert(fp32, ranges_of(fp32, images()), format=FP8))


def test_weights_keep_their_relative_precision_with_one_scale():
    """Also those of an output that is thirty times smaller than another."""
    weight = np.random.default_rng(0).normal(0, 1, (4, 8, 3, 3)).astype(np.float32)
    weight[1] /= 30
    numbers, scale = quantize_weight(weight, 0.0, None, FP8)
    assert numbers.dtype == FP8.dtype
    assert scale.shape == ()
    assert np.abs(numbers.astype(np.float32)).max() <= 448
    error = np.abs(numbers.astype(np.float32) * scale - weight)
    large = np.abs(weight) > 0.01 * np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    assert (error[large] <= np.abs(weight[large]) / 16).all()


def test_products_are_fp8_and_the_rest_is_half(fp8):
    """The stem has a kernel of 7×7, which compilers do not compute in FP8."""
    values = constants(onnx.load_model_from_string(fp8).graph)
    kinds = {name: tensor.data_type for name, tensor in values.items()}
    weights = [name for name in kinds if name.endswith(".weight.fp8")]
    assert len(weights) == 9
    assert {kinds[name] for name in weights} == {TensorProto.FLOAT8E4M3FN}
    assert {values[name.replace(".fp8", ".scale.half")].dims[:] == [] for name in weights} == {True}
    assert misplaced(fp8) == []


def test_sums_are_not_rounded(fp32, fp8):
    assert [layer.kind for layer in layers(fp32, FP8)] == ["Conv"] * 9
    nodes = onnx.load_model_from_string(fp8).graph.node
    made = {output: node.op_type for node in nodes for output in node.output}
    sums = [{made[name] for name in node.input} for node in nodes if node.op_type == "Add"]
    assert sums[1] == {"Conv"}  # both branches of a block with another width


@pytest.mark.skipif(
    tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 30),
    reason="ONNX Runtime before 1.30 cuts the fraction of float16 off when it quantizes",
)
def test_labels_stay(fp32, fp8):
    """Three bits of mantissa are coarser than INT8 near the range, and finer near 0."""
    assert np.mean(run(fp32, images())[0] == run(fp8, images())[0]) > 0.9


def test_an_old_opset_is_raised():
    net = Net()
    x = net.op("Relu", net.conv(net.image(), "stem", 3, 8))
    model = net.model(net.conv(x, "classifier", 8, 5, 1), opset=17)
    form = tensorrt_form(insert(model, ranges_of(model, images(2)), format=FP8))
    assert onnx.load_model_from_string(form).opset_import[0].version == 19
    run(form, images(1))


def test_the_linter_reads_it(fp8):
    assert [found for found in lint(fp8, "tensorrt-11") if found.level != "note"] == []
    coverage = predict_int8_coverage(read_graph(fp8), "tensorrt-11")
    assert (coverage.int8_convolutions, coverage.convolutions) == (9, 10)
    assert "9 of 10 convolutions and 0 of 2 matrix products in FP8" in str(coverage)


def test_zero_is_representable(fp8):
    zero = constants(onnx.load_model_from_string(fp8).graph)["zero.s8"]
    assert zero.data_type == TensorProto.FLOAT8E4M3FN
    assert float(numpy_helper.to_array(zero)) == 0
    assert "QuantizeLinear" in operators(fp8)
