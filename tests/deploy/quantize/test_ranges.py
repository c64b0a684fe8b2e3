"""Which activations are counted, and which are not."""

import numpy as np
import onnx
import pytest

from deploy.errors import UserError
from deploy.quantize.ranges import cells, collect
from tests.deploy.quantize.nets import Net, calibration, images, residual_net


@pytest.fixture(scope="module")
def patches() -> tuple[bytes, str, str]:
    """A network whose feature cells see 8×8 pixels each and nothing of their neighbors; its conv and ReLU tensors."""
    net = Net()
    conv = net.conv(net.image(), "patches", 3, 4, 8, strides=[8, 8], pads=[0] * 4)
    relu = net.op("Relu", conv)
    return net.model(net.conv(relu, "classifier", 4, 3, 1)), conv, relu


def activations(model, names, image):
    import onnxruntime

    proto = onnx.load_model_from_string(model)
    proto.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in names)
    return onnxruntime.InferenceSession(proto.SerializeToString()).run(names, {"image": image})


def test_counts_every_value_of_every_image(patches):
    model, conv, relu = patches
    batches = images(3)
    found = collect(model, [conv, relu], calibration(batches))
    values = [activations(model, [conv, relu], image) for image in batches]
    for name, raw in zip((conv, relu), map(np.concatenate, zip(*values, strict=True)), strict=True):
        counted = found[name]
        assert counted.images == 3
        assert counted.max == np.abs(raw).max()
        assert counted.zeros == np.count_nonzero(raw == 0)
        assert counted.counts.sum() + counted.zeros == raw.size
        edges_below = np.searchsorted(np.sort(np.abs(raw[raw != 0])), counted.edges[1:-1])
        assert np.abs(np.cumsum(counted.counts)[:-1] - edges_below).max() <= 2


def test_what_lies_under_invalid_pixels_changes_nothing(patches):
    model, conv, relu = patches
    image, valid = images(1)[0], np.ones((32, 48), bool)
    valid[:, 24:] = False
    wild = image.copy()
    wild[:, :, 24:] = np.random.default_rng(0).integers(0, 2, wild[:, :, 24:].shape) * 255
    calm, wilder = (collect(model, [conv, relu], [(one, valid)]) for one in (image, wild))
    free = collect(model, [conv, relu], calibration([wild]))
    for name in (conv, relu):
        assert calm[name].max == wilder[name].max < free[name].max
        np.testing.assert_array_equal(calm[name].counts, wilder[name].counts)


def test_a_cell_counts_if_it_sees_one_valid_pixel(patches):
    model, conv, _ = patches
    valid = np.zeros((32, 48), bool)
    valid[31, 47] = valid[8, 0] = True
    found = collect(model, [conv], [(images(1)[0], valid)])[conv]
    assert found.counts.sum() + found.zeros == 2 * 4


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (3, 3), (1, 2), (32, 48), (40, 50)])
def test_cells_are_blocks_of_the_mask(size):
    valid = np.random.default_rng(0).random((32, 48)) < 0.05
    for i, j in np.ndindex(size):
        top, left = i * 32 // size[0], j * 48 // size[1]
        bottom, right = max((i + 1) * 32 // size[0], top + 1), max((j + 1) * 48 // size[1], left + 1)
        assert cells(valid, size)[i, j] == valid[top:bottom, left:right].any()


def test_pooled_features_count_whole():
    net = Net()
    x = net.op("Relu", net.conv(net.image(), "stem", 3, 4, 8, strides=[8, 8], pads=[0] * 4))
    pooled = net.op("GlobalAveragePool", x)
    gate = net.op("Sigmoid", net.conv(pooled, "gate", 4, 4, 1))
    model = net.model(net.conv(net.op("Mul", x, gate), "classifier", 4, 3, 1))
    valid = np.zeros((32, 48), bool)
    valid[0, 0] = True
    found = collect(model, [pooled], [(images(1)[0], valid)])[pooled]
    assert found.counts.sum() + found.zeros == 4


def test_images_without_a_valid_pixel_are_left_out(patches):
    model, conv, _ = patches
    first, second = images(2)
    nothing = np.zeros((32, 48), bool)
    alone = collect(model, [conv], calibration([first]))[conv]
    beside = collect(model, [conv], [(second, nothing), *calibration([first]), (second, nothing)])[conv]
    assert (beside.images, beside.max) == (1, alone.max)
    np.testing.assert_array_equal(alone.counts, beside.counts)


@pytest.mark.parametrize("count", [0, 2])
def test_a_set_without_a_valid_pixel_is_refused(patches, count):
    empty = [(image, np.zeros((32, 48), bool)) for image in images(count)]
    with pytest.raises(UserError, match="no image with a valid pixel"):
        collect(patches[0], [patches[1]], empty)


def test_activations_that_are_not_finite_are_refused():
    net = Net()
    x = net.conv(net.image(), "stem", 3, 4)
    x = net.op("Mul", x, net.constant("huge", 3e38))
    model = net.model(net.conv(net.op("Mul", x, net.constant("huger", 3e38)), "classifier", 4, 3))
    with pytest.raises(UserError, match="NaN or infinite for calibration image 1 of the set"):
        collect(model, [x], calibration(images(1)))
    void = [(image, np.zeros((32, 48), bool)) for image in images(2)]
    with pytest.raises(UserError, match="NaN or infinite for calibration image 3 of the set"):
        collect(model, ["image", x], [*void, *calibration(images(1))])


def test_the_image_itself_and_an_output_can_be_counted(patches):
    proto = onnx.load_model_from_string(residual_net())
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    batches = [image.astype(np.float32) for image in images(2)]
    found = collect(proto.SerializeToString(), ["image", "logits"], calibration(batches))
    assert found["image"].max == 255
    assert found["logits"].counts.sum() > 0


def test_models_that_cannot_run_are_refused(patches):
    proto = onnx.load_model_from_string(patches[0])
    proto.graph.node.append(onnx.helper.make_node("Magic", ["logits"], ["more"], domain="somewhere.else"))
    proto.opset_import.append(onnx.helper.make_opsetid("somewhere.else", 1))
    with pytest.raises(UserError, match=r"ONNX Runtime cannot load the model \(.*Magic") as caught:
        collect(proto.SerializeToString(), [patches[1]], calibration(images(1)))
    assert "\n" not in str(caught.value)
    proto.graph.input.append(proto.graph.input[0])
    proto.graph.input[1].name = "second"
    with pytest.raises(UserError, match="has 2 inputs"):
        collect(proto.SerializeToString(), [patches[1]], calibration(images(1)))
