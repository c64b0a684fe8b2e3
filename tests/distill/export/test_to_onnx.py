"""Torch and the exported bundle give the same labels, for any batch, in a process without torch."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import deploy
from deploy.bundle.manifest import ClassInfo, InputSpec
from deploy.lint.dla_alone import not_alone
from deploy.quantize.core_form import core_form
from distill.data.sample import make_sample
from distill.data.splits import Splits
from distill.export.deployable import Deployable, TorchEngine
from distill.export.evaluate import evaluate, torch_model
from distill.export.to_onnx import export_onnx, write_model_bundle
from teacher.fold import fold_pyramid
from teacher.pspnet import PSPNet
from tests.distill.data.listed import Listed
from tests.distill.tiny import prepared_data

OPTICAL = InputSpec(
    channels=("R", "G", "B"),
    height=64,
    width=80,
    dtype="uint8",
    layout="NHWC",
    mean=(90.0, 100.0, 110.0),
    std=(60.0, 61.0, 62.0),
)
RADAR = InputSpec(
    channels=("VV", "VH"),
    height=48,
    width=48,
    dtype="float32",
    layout="NCHW",
    mean=(-12.0, -19.0),
    std=(5.0, 5.5),
    nodata="nan",
)


def splits_for(spec, size):
    rng = np.random.default_rng(0)
    shape = (*size, len(spec.channels))
    images = [
        rng.integers(0, 256, shape, dtype=np.uint8)
        if spec.dtype == "uint8"
        else rng.normal(-15, 5, shape).astype(np.float32)
        for _ in range(3)
    ]
    if spec.nodata:
        images[0][:9, :] = np.nan
    labels = [rng.integers(0, 4, size) for _ in images]
    pairs = zip(images, labels, strict=True)
    reader = Listed(
        [make_sample(image, label, id=str(i), num_classes=4) for i, (image, label) in enumerate(pairs)]
    )
    classes = tuple(ClassInfo(f"class {i}", (50 * i, 10, 200)) for i in range(4))
    return Splits("memory", classes, spec.channels, spec.dtype == "uint8", reader, reader, reader)


def network_for(spec):
    torch.manual_seed(0)
    network = PSPNet("test_efficientnet", len(spec.channels), 4, output_stride=16, head_channels=16)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.5)
    return network.eval()


@pytest.fixture(scope="module", params=[OPTICAL, RADAR], ids=["optical", "radar"])
def exported(request, tmp_path_factory):
    spec = request.param
    network, splits = network_for(spec), splits_for(spec, (70, 90))
    deployable = Deployable(fold_pyramid(network), spec)
    model = export_onnx(deployable, opset=20)
    folder = tmp_path_factory.mktemp("export") / "student.bundle"
    write_model_bundle(folder, model, deployable, prepared_data(splits), {"seed": "0"})
    return spec, network, splits, model, folder


def test_runtime_agrees_with_torch_on_images_of_another_size(exported):
    spec, network, splits, _, folder = exported
    torch_scores = evaluate(
        torch_model(network, spec, prepared_data(splits)), splits.test, prepared_data(splits)
    )
    model = deploy.load(folder, precision="fp32")  # `auto` may take bf16, whose gate is looser
    assert evaluate(model, splits.test, prepared_data(splits)).score() == pytest.approx(
        torch_scores.score(), abs=1e-3
    )
    in_torch = torch_model(network, spec, prepared_data(splits))
    for sample in splits.test.samples:
        image = sample.image.permute(1, 2, 0).numpy()
        image = image.astype(np.uint8) if splits.optical else image
        ours, theirs = in_torch(image), model(image)
        assert (ours.labels == theirs.labels).mean() >= 0.999
        np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-4)
        assert ((theirs.labels == 255) == ~theirs.valid).all()


def test_batch_is_dynamic_and_size_is_not(exported):
    spec, _, _, model, _ = exported
    graph = onnx.load_from_string(model).graph
    (image,) = graph.input
    axes = [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim]
    size = (
        [spec.height, spec.width, len(spec.channels)]
        if spec.layout == "NHWC"
        else [len(spec.channels), spec.height, spec.width]
    )
    assert isinstance(axes[0], str)
    assert axes[1:] == size
    assert [output.name for output in graph.output] == ["labels", "logits"]


def test_no_dla_runs_the_pyramid_alone(exported):
    spec, _, _, model, _ = exported
    assert "only multiplies by a constant second matrix" in not_alone(core_form(model, spec, 1), shown=99)


def test_one_image_and_a_batch_agree(exported):
    _, _, splits, _, folder = exported
    model = deploy.load(folder)
    images = [s.image.permute(1, 2, 0).numpy() for s in splits.test.samples]
    images = [image.astype(np.uint8) if splits.optical else image for image in images]
    together = model(images).labels
    for image, labels in zip(images, together, strict=True):
        assert (model(image).labels == labels).mean() >= 0.999


def test_auxiliary_head_and_traces_are_not_exported(exported):
    _, network, _, model, _ = exported
    loaded = onnx.load_from_string(model)
    stored = sum(int(np.prod(tensor.dims)) for tensor in loaded.graph.initializer)
    inference = sum(p.numel() for name, p in network.named_parameters() if not name.startswith("aux_head"))
    assert stored < 1.05 * inference
    assert b"pspnet.py" not in model


def test_nodata_is_in_the_result_not_in_the_scores(exported):
    spec, network, splits, _, _ = exported
    sample = splits.test.samples[0]
    if spec.nodata is None:
        assert sample.valid.all()
        return
    outputs = TorchEngine(Deployable(network, spec)).run(np.zeros((1, 2, 48, 48), np.float32))
    assert np.isfinite(outputs["logits"]).all()
    result = torch_model(network, spec, prepared_data(splits))(sample.image.permute(1, 2, 0).numpy())
    assert (result.labels[:9] == 255).all()
    assert (result.labels[9:] < 4).all()


@pytest.mark.parametrize("size", [(6, 6), (13, 7), (45, 60), (97, 97)])
def test_pyramid_exports_to_few_nodes(size):
    from teacher.pspnet import PyramidPooling

    pyramid = PyramidPooling(8).eval()
    x = torch.randn(2, 8, *size)
    program = torch.onnx.export(
        pyramid, (x,), dynamo=True, verbose=False, dynamic_shapes=({0: torch.export.Dim("n")},)
    )
    assert len(program.model_proto.graph.node) < 40
