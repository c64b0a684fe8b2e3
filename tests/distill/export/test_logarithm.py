"""The logarithm in the graph: the same numbers in numpy, training and ONNX Runtime, and float32 in other precisions."""

import math
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.backends.openvino_cpu import OvEngine
from deploy.bundle.manifest import InputSpec
from deploy.quantize.half import half_beside_int8, to_fp16
from deploy.quantize.qdq import cpu_form, insert
from distill.data.sample import Batch
from distill.export.deployable import Deployable, TorchEngine
from distill.export.to_onnx import export_onnx
from distill.training.stage import Stage
from distill.training.step_module import normalized
from teacher.pspnet import Output
from tests.deploy.quantize.nets import ranges_of
from tests.distill.tiny import CE, TinyNet

RADAR = InputSpec(
    *(("VV", "VH"), 16, 20, "float32", "NCHW"),
    mean=(math.log(0.02), math.log(3e4)),
    std=(1.2, 0.8),
    nodata="nan",
    log_floor=(2e-5, 4.0),
)
PHOTO = InputSpec(
    *(("R", "G", "B"), 16, 20, "uint8", "NHWC"),
    mean=(4.0, 3.5, 4.5),
    std=(1.2, 0.8, 1.7),
    log_floor=(0.01, 0.005, 0.009),
)
SPECS = pytest.mark.parametrize("spec", [RADAR, PHOTO], ids=["radar", "photo"])


class Same(nn.Module):
    """Returns its image as scores."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)
        nn.init.dirac_(self.conv.weight)

    def forward(self, x: torch.Tensor) -> Output:
        return Output(self.conv(x), None, {})


def pixels(spec: InputSpec) -> np.ndarray:
    """A batch of two in the layout of the network, with values at and below 0."""
    rng = np.random.default_rng(0)
    if spec.dtype == "uint8":
        return rng.integers(0, 256, (2, 16, 20, 3), np.uint8)
    noise = rng.normal(size=(2, 2, 16, 20))
    image = np.exp(2 * noise + np.array(spec.mean)[:, None, None]).astype(np.float32)
    image[0, :, :3], image[1, :, 3:5] = 0, -1e4
    return image


def by_definition(image: np.ndarray, spec: InputSpec) -> np.ndarray:
    """N×C×H×W in float64."""
    planes = (image.transpose(0, 3, 1, 2) if spec.layout == "NHWC" else image).astype(np.float64)
    mean, std, floor = (np.array(values)[:, None, None] for values in (spec.mean, spec.std, spec.log_floor))
    return (np.log(np.maximum(planes, floor)) - mean) / std


def in_training(image: np.ndarray, spec: InputSpec) -> np.ndarray:
    planes = torch.from_numpy(image.transpose(0, 3, 1, 2) if spec.layout == "NHWC" else image).float()
    mean, std, floor = (
        torch.tensor(values).view(-1, 1, 1) for values in (spec.mean, spec.std, spec.log_floor)
    )
    view: object = None
    stage = Stage("a", Path(), view, mean, std, CE, 0, log_floor=floor)  # pyright: ignore[reportArgumentType]
    label = torch.zeros(2, 16, 20, dtype=torch.int64)
    return normalized(Batch(planes, label, label == 0, ("a", "b")), stage, channels_last=False).numpy()


@SPECS
def test_numpy_training_torch_and_backends_agree(spec):
    image, deployable = pixels(spec), Deployable(Same(len(spec.channels)), spec)
    expected = by_definition(image, spec)
    assert np.abs(expected).max() > 3  # the floor is far out
    model = export_onnx(deployable, 20)
    engines = TorchEngine(deployable), OrtEngine(model, threads=1), OvEngine(model, threads=1)
    for found in (in_training(image, spec), *(engine.run(image)["logits"] for engine in engines)):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    linear = msgspec.structs.replace(spec, log_floor=None)
    assert (
        np.abs(
            TorchEngine(Deployable(Same(len(spec.channels)), linear)).run(image)["logits"] - expected
        ).max()
        > 1
    )


def trained(spec: InputSpec) -> nn.Module:
    torch.manual_seed(0)
    return TinyNet(len(spec.channels), 3).eval()


def before_products(model: bytes) -> list[onnx.NodeProto]:
    """The nodes up to the logarithm."""
    nodes = list(onnx.load_model_from_string(model).graph.node)
    return nodes[: [node.op_type for node in nodes].index("Log") + 1]


@SPECS
def test_the_logarithm_stays_float32_in_half_precision(spec):
    model, image = export_onnx(Deployable(trained(spec), spec), 20), pixels(spec)
    half = to_fp16(model)
    graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(half)).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    for node in graph.node:
        if node.op_type in ("Max", "Log", "Sub"):
            assert kinds[node.output[0]] == TensorProto.FLOAT, node.op_type
    assert TensorProto.FLOAT16 in kinds.values()
    ours, theirs = (OrtEngine(each, threads=1).run(image) for each in (model, half))
    np.testing.assert_allclose(theirs["logits"], ours["logits"], atol=0.01)


@SPECS
def test_int8_begins_after_the_logarithm(spec):
    deployable, image = Deployable(trained(spec), spec), pixels(spec)
    model = export_onnx(deployable, 20)
    int8 = insert(model, ranges_of(model, [image[:1], image[1:]]))
    expected = TorchEngine(deployable).run(image)
    for form in (int8, cpu_form(int8), half_beside_int8(int8)):
        kinds = [node.op_type for node in before_products(form)]
        assert set(kinds) <= {"Cast", "Max", "Log"}, kinds
        assert kinds[-1] == "Log"
        labels = OrtEngine(form, threads=1).run(image)["labels"]
        assert np.mean(labels == expected["labels"]) > 0.9
