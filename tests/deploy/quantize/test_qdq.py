"""The INT8 model: what is on a grid, and what stays in float."""

from collections import Counter

import numpy as np
import onnx
import pytest

from deploy.errors import UserError
from deploy.quantize.qdq import cpu_form, insert, layers, quantize_weight, scale_above
from tests.deploy.quantize.nets import Net, images, initializers, operators, ranges_of, residual_net, run

CONVOLUTIONS = [
    "backbone.conv1",
    "backbone.layer1.0.conv1",
    "backbone.layer1.0.conv2",
    "backbone.layer2.0.conv1",
    "backbone.layer2.0.conv2",
    "backbone.layer2.0.downsample.0",
    "pyramid.branches.0.0",
    "pyramid.taps.0",
    "pyramid.direct",
    "classifier",
]


@pytest.fixture(scope="module")
def fp32():
    return residual_net(width=32)


@pytest.fixture(scope="module")
def s8(fp32):
    return insert(fp32, ranges_of(fp32, images(), 1.2))


class TestLayers:
    def test_finds_convolutions_and_residual_sums_in_order(self, fp32):
        found = layers(fp32)
        assert [layer.name for layer in found if layer.kind == "Conv"] == CONVOLUTIONS
        sums = [layer for layer in found if layer.kind == "Add"]
        assert [layer.name for layer in sums] == [
            "backbone.layer1.0.add",
            "backbone.layer2.0.add",
            "pyramid.direct.add",
        ]
        assert {layer.block for layer in found} == {
            "backbone.conv1",
            "backbone.layer1.0",
            "backbone.layer2.0",
            "pyramid.branches.0.0",
            "pyramid.taps.0",
            "pyramid.direct",
            "classifier",
        }
        assert all(len(layer.tensors) == (1 if layer.kind == "Conv" else 2) for layer in found)

    def test_a_tensor_before_max_pooling_stands_for_the_one_behind(self, fp32):
        found = {layer.name: layer for layer in layers(fp32)}
        (stem,) = (n for n in onnx.load_model_from_string(fp32).graph.node if n.op_type == "MaxPool")
        assert found["backbone.layer1.0.conv1"].tensors == (stem.input[0],)

    def test_sums_with_constants_or_of_sizes_are_no_layers(self):
        net = Net()
        x = net.conv(net.image(), "stem", 3, 4)
        x = net.op("Add", x, net.constant("offset", np.ones((4, 1, 1))))
        size = net.op("Shape", x)
        net.op("Add", size, size)
        found = layers(net.model(net.conv(x, "classifier", 4, 3)))
        assert [layer.name for layer in found] == ["stem", "classifier"]

    def test_shared_weights_give_two_layers(self):
        net = Net()
        x = net.conv(net.image(), "stem", 3, 4)
        x = net.op("Conv", x, net.constant("network.twice.weight", np.ones((4, 4, 1, 1))))
        x = net.op("Conv", net.op("Relu", x), "network.twice.weight")
        model = net.model(net.conv(x, "classifier", 4, 3))
        assert [layer.name for layer in layers(model)] == ["stem", "twice", "twice#2", "classifier"]
        batches = images(2)
        mixed = insert(model, ranges_of(model, batches), ["twice"])
        assert {"network.twice.weight", "twice#2.weight.int8"} <= set(initializers(mixed))
        run(mixed, batches)


class TestFloatAndInt8:
    def test_weights_are_int8_and_nothing_else_is_int32_or_has_a_zero_point(self, fp32, s8):
        values = initializers(s8)
        for name in CONVOLUTIONS:
            assert values[f"{name}.weight.int8"].dtype == np.int8
            assert f"network.{name}.weight" not in values
        assert all(value.dtype != np.int32 for value in values.values())
        quantizing = [n for n in onnx.load_model_from_string(s8).graph.node if "Linear" in n.op_type]
        zeros = [values[node.input[2]] for node in quantizing]
        assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
        assert values["network.classifier.bias"].dtype == np.float32
        assert values["rows"].dtype == values["columns"].dtype == np.float32

    def test_a_tensor_has_one_grid(self, s8):
        nodes = onnx.load_model_from_string(s8).graph.node
        quantized = Counter(node.input[0] for node in nodes if node.op_type == "QuantizeLinear")
        assert max(quantized.values()) == 1
        assert "logits" not in quantized
        assert "image" not in quantized

    def test_max_pooling_keeps_the_grid(self, s8):
        nodes = onnx.load_model_from_string(s8).graph.node
        (pool,) = (node for node in nodes if node.op_type == "MaxPool")
        (before,) = (node for node in nodes if pool.input[0] in node.output)
        (after,) = (node for node in nodes if pool.output[0] in node.input)
        assert (before.op_type, after.op_type) == ("DequantizeLinear", "QuantizeLinear")
        assert before.input[1] == after.input[1]

    def test_the_file_shrinks(self):
        model = residual_net(width=64)
        assert len(insert(model, ranges_of(model, images(2)))) <= 0.3 * len(model)

    def test_the_same_input_gives_the_same_bytes(self, fp32, s8):
        ranges = ranges_of(fp32, images(), 1.2)
        assert insert(fp32, dict(reversed(ranges.items()))) == s8
        assert cpu_form(s8) == cpu_form(s8)

    def test_float_layers_are_as_they_were(self, fp32):
        kept = ["backbone.layer1.0.conv2", "pyramid.direct", "backbone.layer2.0.add"]
        mixed = insert(fp32, ranges_of(fp32, images(2)), kept)
        before = {node.output[0]: node for node in onnx.load_model_from_string(fp32).graph.node}
        after = {node.output[0]: node for node in onnx.load_model_from_string(mixed).graph.node}
        for layer in layers(fp32):
            untouched = after[layer.output] == before[layer.output]
            assert untouched == (layer.name in kept), layer
        values = initializers(mixed)
        np.testing.assert_array_equal(
            values["network.pyramid.direct.weight"], initializers(fp32)["network.pyramid.direct.weight"]
        )
        run(cpu_form(mixed), images(1))

    def test_a_layer_in_float_takes_its_grid_with_it_unless_another_needs_it(self, fp32):
        ranges = ranges_of(fp32, images(2))
        found = {layer.name: layer for layer in layers(fp32)}
        alone, shared = found["pyramid.taps.0"].tensors[0], found["backbone.layer2.0.conv1"].tensors[0]
        mixed = insert(fp32, ranges, ["pyramid.taps.0", "backbone.layer2.0.conv1"])
        names = set(initializers(mixed))
        assert f"{alone}.scale" not in names
        assert f"{shared}.scale" in names

    def test_all_layers_in_float_are_the_fp32_model(self, fp32):
        same = insert(fp32, {}, [layer.name for layer in layers(fp32)])
        assert "QuantizeLinear" not in operators(same)
        for a, b in zip(run(fp32, images(2)), run(same, images(2)), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_int8_stays_close_to_fp32(self, fp32, s8):
        labels, logits = run(fp32, images())
        rounded_labels, rounded = run(s8, images(), optimize=False)
        assert np.mean(labels == rounded_labels) > 0.9
        assert np.sqrt(np.mean((logits - rounded) ** 2)) < 0.05 * logits.std()


def test_weight_scales():
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 0.1, (6, 4, 3, 3)).astype(np.float32)
    weight[1], weight[2] = 0, weight[2] * 1e-20
    steps = np.array([1.0, 0.0, 5.0, -7.0, 0.0, 2.0])
    integers, scale = quantize_weight(weight, steps)
    assert (integers.dtype, scale.dtype) == (np.int8, np.float32)
    assert (np.isfinite(scale) & (scale > 0)).all()
    assert np.abs(steps / scale).max() <= 2**30 * (1 + 1e-6)
    assert (np.abs(integers[[0, 3, 4, 5]]).reshape(4, -1).max(axis=1) == 127).all()
    error = integers * scale[:, None, None, None] - weight
    assert (np.abs(error) <= scale[:, None, None, None] / 2 * (1 + 1e-5)).all()


def test_scales_are_the_next_float16_numbers():
    scales = np.array([0.0, 1e-12, 3e-8, 1e-6, 1 / 3, 0.5, 12345.6, 7e4], np.float32)
    above = scale_above(scales)
    assert above.dtype == np.float32
    assert (above >= scales).all()
    assert above[:3] == pytest.approx(2.0**-24)
    assert (above[4:7] <= scales[4:7] * 1.001).all()
    assert (above[:7] == above[:7].astype(np.float16)).all()
    assert above[5] == 0.5
    assert above[7] == scales[7]  # float16 has no such number


BROKEN = {
    "empty": (lambda model: b"", "the model is empty"),
    "no ONNX": (lambda model: b"hello, world\n" * 50, "not an ONNX file"),
    "cut off": (lambda model: model[: len(model) // 2], "not an ONNX file"),
    "already quantized": (lambda model: insert(model, ranges_of(model, images(1))), "quantized already"),
    "old": (lambda model: _with_opset(model, 12), "opset 12, 13 or newer"),
}


def _with_opset(model, opset):
    proto = onnx.load_model_from_string(model)
    proto.opset_import[0].version = opset
    del proto.graph.node[:]
    proto.graph.node.extend([onnx.helper.make_node("Relu", ["image"], ["logits"])])
    del proto.graph.output[0]
    return proto.SerializeToString()


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_model_is_one_line(kind, fp32):
    spoil, message = BROKEN[kind]
    with pytest.raises(UserError, match=message) as caught:
        layers(spoil(fp32))
    assert "\n" not in str(caught.value)


def test_unknown_layers_and_missing_ranges_are_named(fp32):
    with pytest.raises(UserError, match=r"no layer is called nonsense"):
        insert(fp32, {}, ["nonsense", "classifier"])
    ranges = ranges_of(fp32, images(1))
    name = layers(fp32)[-1].tensors[0]
    for wrong in ({name: 0.0}, {name: float("nan")}):
        with pytest.raises(UserError, match=f"tensor {name} has no range above 0"):
            insert(fp32, ranges | wrong)
