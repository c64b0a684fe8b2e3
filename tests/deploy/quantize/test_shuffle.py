"""Quantization grids pass through a pixel shuffle, and what runs in float before and after it."""

import numpy as np
import onnx
import pytest

from deploy.lint import lint
from deploy.quantize.qdq import cpu_form, insert, layers
from tests.deploy.quantize.nets import Net, images, initializers, operators, ranges_of, run


def shuffling_net(relu: bool = True) -> bytes:
    """A convolution at half the size, its pixels shuffled to full size, sliced, and convolved again."""
    net = Net()
    x = net.op("Relu", net.conv(net.image(), "down", 3, 8, strides=[2, 2]))
    x = net.conv(x, "up", 8, 16)
    x = net.op("Relu", x) if relu else x
    x = net.op("DepthToSpace", x, blocksize=2, mode="CRD")
    ends = [
        net.constant(name, value, np.int64) for name, value in (("from", [1]), ("to", [99]), ("axis", [2]))
    ]
    x = net.op("Slice", x, *ends)
    x = net.op("Relu", net.conv(x, "head", 4, 8))
    return net.model(net.conv(x, "classifier", 8, 5, 1))


@pytest.mark.parametrize("relu", [True, False])
def test_the_grid_before_stands_for_the_one_behind(relu):
    model = shuffling_net(relu)
    found = {layer.name: layer for layer in layers(model)}
    assert found["up"].tensors[1:] == found["head"].tensors
    proto = onnx.load_model_from_string(insert(model, ranges_of(model, images())))
    scales = {node.input[1] for node in proto.graph.node if node.op_type == "QuantizeLinear"}
    assert len(scales) == 4  # image, down, up, head


def test_all_between_runs_in_integers(tmp_path):
    model = shuffling_net()
    int8 = insert(model, ranges_of(model, images(), 1.1))
    file = str(tmp_path / "optimized.onnx")
    _, exact = run(model, images())
    for form in (int8, cpu_form(int8)):
        assert np.sqrt(np.mean((run(form, images())[1] - exact) ** 2)) < 0.1 * exact.std()
    run(cpu_form(int8), images(1), dump=file)
    assert operators(file).count("QLinearConv") == 3
    assert operators(file).count("QuantizeLinear") == 1
    for target, form in (
        ("onnxruntime", cpu_form(int8)),
        ("tensorrt-rtx", int8),
        ("openvino", cpu_form(int8)),
    ):
        assert "unfused-pair" not in {found.rule for found in lint(form, target)}


def test_other_slices_have_grids_of_their_own():
    net = Net()
    x = net.op("Relu", net.conv(net.image(), "stem", 3, 8))
    ends = [
        net.constant(name, value, np.int64) for name, value in (("from", [0]), ("to", [4]), ("axis", [1]))
    ]
    x = net.op("Slice", x, *ends)
    model = net.model(net.conv(x, "classifier", 4, 5, 1))
    assert layers(model)[-1].tensors == (x,)


def test_a_transposed_convolution_stays_in_float_and_lets_the_one_before_write_integers(tmp_path):
    net = Net()
    x = net.op("Relu", net.conv(net.image(), "down", 3, 8, strides=[2, 2]))
    x = net.op("Relu", net.conv(x, "deep", 8, 8))
    weight = net.constant("network.up.weight", net.rng.normal(0, 0.2, (8, 8, 2, 2)))
    x = net.op("Relu", net.op("ConvTranspose", x, weight, strides=[2, 2]))
    model = net.model(net.conv(x, "classifier", 8, 5, 1))
    assert [layer.name for layer in layers(model)] == ["down", "deep", "classifier"]
    int8 = insert(model, ranges_of(model, images(), 1.1))
    assert initializers(int8)["network.up.weight"].dtype == np.float32
    file = str(tmp_path / "optimized.onnx")
    run(cpu_form(int8), images(1), dump=file)
    assert operators(file).count("QLinearConv") == 2
    assert not [found for found in lint(cpu_form(int8), "onnxruntime") if found.level == "error"]
