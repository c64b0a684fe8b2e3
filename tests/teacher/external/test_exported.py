"""Networks that exist only as an ONNX file: what they compute, at which size, and which files are refused."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from deploy.bundle.bundle_files import set_decision
from deploy.errors import UserError
from deploy.inference.tiling import predict_tiled
from deploy.loading import load
from teacher.external.exported import open_exported
from teacher.external.exported_network import ExportedNetwork
from tests.deploy.hostile import edit
from tests.deploy.tiny import make_bundle, make_image

SIZE = (32, 48)


def as_tensor(*images):
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()


def network(path, whole=SIZE):
    found = open_exported(path)
    return ExportedNetwork(found, whole, found.mean or (0.0,) * found.in_channels)


def write_onnx(path, *, image=("N", 3, "h", "w"), kind=TensorProto.FLOAT, scores=("N", 4, "a", "b"), **more):
    """A network of one 2×2 convolution with stride 2."""
    weight = np.random.default_rng(0).normal(size=(4, 3, 2, 2)).astype(np.float32)
    inputs = [helper.make_tensor_value_info("image", kind, image), *more.get("inputs", ())]
    outputs = [
        helper.make_tensor_value_info(
            more.get("only", "scores"), more.get("score_kind", TensorProto.FLOAT), scores
        ),
        *more.get("outputs", ()),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["real", "weight"], ["scores"], strides=[2, 2]),
        *more.get("nodes", ()),
    ]
    graph = helper.make_graph(nodes, "one", inputs, outputs, [numpy_helper.from_array(weight, "weight")])
    opset = [helper.make_opsetid("", 18)]
    path.write_bytes(helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString())
    return path, torch.from_numpy(weight)


@pytest.mark.parametrize("kind", ["rgb", "sar"])
def test_a_bundle_computes_what_a_device_does(tmp_path, kind):
    make_bundle(tmp_path / "b", kind)
    images = [make_image(kind, seed) for seed in range(3)]
    model = load(tmp_path / "b", "onnxruntime")
    expected = [model(image)._logits[0] for image in images]
    found = network(tmp_path / "b")(as_tensor(*images)).logits
    np.testing.assert_array_equal(found.numpy(), np.stack(expected))
    assert found.shape[2:] == (4, 6)  # at its stride


def test_a_temperature_counts(tmp_path):
    make_bundle(tmp_path / "b", "sar")
    image, before = as_tensor(make_image("sar")), network(tmp_path / "b")
    first = before(image).logits
    set_decision(tmp_path / "b", None, 2.0)
    after = network(tmp_path / "b")
    torch.testing.assert_close(after(image).logits, first / 2)
    assert not after.sha256.equal(before.sha256)


def test_of_a_run_the_teacher_teaches(tmp_path):
    make_bundle(tmp_path / "run" / "student.bundle", "sar")
    assert open_exported(tmp_path / "run").source.name == "student.bundle"
    make_bundle(tmp_path / "run" / "teacher.bundle", "sar")
    assert open_exported(tmp_path / "run").source.name == "teacher.bundle"


def test_images_of_another_size_are_resized_as_a_whole(tmp_path):
    """An image of 64×96 is shrunk to 32×48, and a crop of it by the same factor, not to the whole window."""
    make_bundle(tmp_path / "b", "sar")
    teacher = network(tmp_path / "b", (64, 96))
    small = make_image("sar")
    large = as_tensor(small).repeat_interleave(2, 2).repeat_interleave(2, 3)
    whole = teacher(large).logits
    torch.testing.assert_close(whole, network(tmp_path / "b")(as_tensor(small)).logits)
    crop = teacher(large[:, :, :32, :48]).logits
    assert crop.shape[2:] == (2, 3)
    # the network sees no farther than a patch, so that only the enlargement between cells differs
    torch.testing.assert_close(crop, whole[:, :, :2, :3], rtol=0.2, atol=0.2)


def test_a_network_that_tiles_sees_images_at_their_own_scale(tmp_path):
    make_bundle(tmp_path / "b", "sar", "tile")
    image, found = make_image("sar", size=(48, 60)), open_exported(tmp_path / "b")
    teacher = ExportedNetwork(found, (99, 99), found.mean)
    logits = teacher(as_tensor(image)).logits
    full = predict_tiled(lambda w: found.run(np.moveaxis(w, 3, 1)), image, SIZE, fill=found.mean)
    assert logits.shape[2:] == (6, 8)
    expected = torch.nn.functional.interpolate(torch.from_numpy(full)[None], (6, 8), mode="area")
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize(
    ("batch", "kind"), [("N", TensorProto.FLOAT), (1, TensorProto.FLOAT), ("N", TensorProto.UINT8)]
)
def test_a_file_computes_its_scores(tmp_path, batch, kind):
    path, weight = write_onnx(tmp_path / "a.onnx", image=(batch, 3, "h", "w"), kind=kind)
    image = 255 * torch.rand(3, 3, 10, 14, generator=torch.Generator().manual_seed(0))
    real = image.round() if kind == TensorProto.UINT8 else image
    expected = torch.nn.functional.conv2d(real, weight, stride=2)
    torch.testing.assert_close(network(path)(image).logits, expected, rtol=1e-4, atol=1e-3)


def test_a_file_with_one_size_is_given_that(tmp_path):
    path, weight = write_onnx(tmp_path / "a.onnx", image=(1, 3, 8, 12))
    assert open_exported(path).size == (8, 12)
    image = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.conv2d(image, weight, stride=2)
    torch.testing.assert_close(network(path, (8, 12))(image).logits, expected)


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (
                {"inputs": [helper.make_tensor_value_info("depth", TensorProto.FLOAT, ["N", 1, "h", "w"])]},
                r"a\.onnx: has 2 inputs \(image, depth\); a teacher has one, the image",
            ),
            ({"image": ("N", "c", "h", "w")}, "input image is N×c×h×w, of any number of channels"),
            ({"image": ("N", 32, 48, 3)}, "input image is N×32×48×3, channels last"),
            ({"image": ("N", 3, 32, "w")}, "fix both sides"),
            ({"image": (4, 3, 32, 48)}, "takes 4 images at a time"),
            ({"image": ("N", 3, "h")}, "input image is N×3×h; a teacher takes images"),
            ({"kind": TensorProto.FLOAT16}, "neither float32 nor uint8"),
            ({"scores": ("N", "k", "a", "b")}, "output scores is N×k×a×b, of any number of classes"),
            ({"scores": ("N", 4)}, "output scores is N×4; a teacher returns the scores"),
            ({"scores": ("N", 1, "a", "b")}, "output scores has 1 map"),
            ({"score_kind": TensorProto.INT64}, "not float32; a teacher returns the scores"),
            (
                {
                    "outputs": [helper.make_tensor_value_info("real", TensorProto.FLOAT, ["N", 3, "h", "w"])],
                },
                r"has 2 outputs \(scores, real\); a teacher has one",
            ),
        ],
    )
    def test_files_of_another_form(self, tmp_path, options, words):
        path, _ = write_onnx(tmp_path / "a.onnx", **options)
        with pytest.raises(UserError, match=words):
            open_exported(path)

    def test_the_model_of_a_bundle_alone(self, tmp_path):
        make_bundle(tmp_path / "b", "sar")
        with pytest.raises(
            UserError, match=r"has 2 outputs \(labels, logits\).*of a bundle .* give the folder"
        ):
            open_exported(tmp_path / "b" / "model.onnx")

    def test_what_is_no_network(self, tmp_path):
        (tmp_path / "a.onnx").write_bytes(b"not a network at all")
        for path, words in (
            (tmp_path / "a.onnx", r"a\.onnx: "),
            (tmp_path, "holds neither"),
            (tmp_path / "b", "no such"),
        ):
            with pytest.raises(UserError, match=words):
                open_exported(path)

    def test_a_file_that_lies_about_its_scores(self, tmp_path):
        path, _ = write_onnx(tmp_path / "a.onnx", scores=("N", 5, "a", "b"))
        with pytest.raises(UserError, match=r"a\.onnx: "):
            network(path)(torch.zeros(1, 3, 8, 8))

    def test_images_that_it_cannot_take(self, tmp_path):
        path, _ = write_onnx(tmp_path / "a.onnx")
        with pytest.raises(UserError, match=r"cannot run it on images 1×3×1×1"):
            network(path)(torch.zeros(1, 3, 1, 1))

    def test_a_bundle_of_another_task(self, tmp_path):
        make_bundle(tmp_path / "b", "sar")
        edit(tmp_path / "b", "task", value="grasp")
        with pytest.raises(UserError, match="is a bundle for grasp; only one for segmentation can teach"):
            open_exported(tmp_path / "b")

    def test_weights_in_a_file_that_is_missing(self, tmp_path):
        path, _ = write_onnx(tmp_path / "a.onnx")
        model = onnx.load(path)
        onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
        digest = open_exported(path).sha256
        content = (tmp_path / "w.bin").read_bytes()
        (tmp_path / "w.bin").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert open_exported(path).sha256 != digest
        (tmp_path / "w.bin").unlink()
        with pytest.raises(UserError, match=r"keeps weights in w\.bin, which is not beside it"):
            open_exported(path)
