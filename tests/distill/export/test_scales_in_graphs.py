"""Scales in the graph: the same numbers in numpy, training and the backends, and float32 in other precisions."""

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
from deploy.raster import ArraySource, Options, predict_raster
from deploy.raster.sources import ArraySink
from deploy.tasks.segmentation.model import SegmentationModel
from distill.data.sample import Batch
from distill.export.deployable import Deployable, TorchEngine
from distill.export.to_onnx import export_onnx
from distill.training.stage import Stage
from distill.training.step_module import normalized
from teacher.pspnet import Output
from tests.deploy.quantize.nets import ranges_of
from tests.deploy.tiny import CLASSES
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
# low and high of VV are beyond float16 for half precision, those of VH are one number, as of a constant channel
CLIPPED = InputSpec(
    *(("VV", "VH"), 16, 20, "float32", "NCHW"),
    mean=(9e4, -7.0),
    std=(3e4, 1.0),
    nodata="nan",
    clip=((2e4, 1.5e5), (-7.0, -7.0)),
)
CLIPPED_PHOTO = InputSpec(
    *(("R", "G", "B"), 16, 20, "uint8", "NHWC"),
    mean=(100.0, 90.0, 20.5),
    std=(40.0, 30.0, 1.0),
    clip=((30.0, 200.0), (20.5, 180.25), (20.0, 21.0)),
)
SPECS = pytest.mark.parametrize(
    "spec", [RADAR, PHOTO, CLIPPED, CLIPPED_PHOTO], ids=["log", "log-photo", "clip", "clip-photo"]
)


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
    center = np.log(np.abs(spec.scale.raw(np.array(spec.mean), np)))[:, None, None]
    image = np.exp(2 * noise + center).astype(np.float32)
    image[0, :, :3], image[1, :, 3:5], image[1, :, 5, 5] = 0, -1e4, 1e30
    return image


def by_definition(image: np.ndarray, spec: InputSpec) -> np.ndarray:
    """N×C×H×W in float64."""
    planes = (image.transpose(0, 3, 1, 2) if spec.layout == "NHWC" else image).astype(np.float64)
    mean, std = (np.array(values)[:, None, None] for values in (spec.mean, spec.std))
    if spec.log_floor is not None:
        return (np.log(np.maximum(planes, np.array(spec.log_floor)[:, None, None])) - mean) / std
    low, high = np.array(spec.clip).T[..., None, None]
    return (planes.clip(low, high) - mean) / std


def in_training(image: np.ndarray, spec: InputSpec) -> np.ndarray:
    planes = torch.from_numpy(image.transpose(0, 3, 1, 2) if spec.layout == "NHWC" else image).float()
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (spec.mean, spec.std))
    view: object = None
    stage = Stage("a", Path(), view, mean, std, CE, 0, scale=spec.scale)  # pyright: ignore[reportArgumentType]
    label = torch.zeros(2, 16, 20, dtype=torch.int64)
    return normalized(Batch(planes, label, label == 0, ("a", "b")), stage, channels_last=False).numpy()


@SPECS
def test_numpy_training_torch_and_backends_agree(spec):
    image, deployable = pixels(spec), Deployable(Same(len(spec.channels)), spec)
    expected = by_definition(image, spec)
    assert np.abs(expected).max() > (3 if spec.log_floor else 1.5)  # the ends are far out
    model = export_onnx(deployable, 20)
    engines = TorchEngine(deployable), OrtEngine(model, threads=1), OvEngine(model, threads=1)
    for found in (in_training(image, spec), *(engine.run(image)["logits"] for engine in engines)):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    linear = msgspec.structs.replace(spec, log_floor=None, clip=None)
    assert (
        np.abs(
            TorchEngine(Deployable(Same(len(spec.channels)), linear)).run(image)["logits"] - expected
        ).max()
        > 1
    )


def trained(spec: InputSpec) -> nn.Module:
    torch.manual_seed(0)
    return TinyNet(len(spec.channels), 3).eval()


def scaling(model: bytes, spec: InputSpec) -> list[str]:
    """The kinds of the nodes up to the last of the scale."""
    kinds = [node.op_type for node in onnx.load_model_from_string(model).graph.node]
    return kinds[: kinds.index("Log" if spec.log_floor else "Min") + 1]


@SPECS
def test_scales_stay_float32_in_half_precision(spec):
    model, image = export_onnx(Deployable(trained(spec), spec), 20), pixels(spec)
    half = to_fp16(model)
    graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(half)).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    for node in graph.node:
        if node.op_type in ("Max", "Min", "Log", "Sub"):
            assert kinds[node.output[0]] == TensorProto.FLOAT, node.op_type
    assert TensorProto.FLOAT16 in kinds.values()
    ours, theirs = (OrtEngine(each, threads=1).run(image) for each in (model, half))
    np.testing.assert_allclose(theirs["logits"], ours["logits"], atol=0.01)


@SPECS
def test_int8_begins_after_the_scale(spec):
    deployable, image = Deployable(trained(spec), spec), pixels(spec)
    model = export_onnx(deployable, 20)
    int8 = insert(model, ranges_of(model, [image[:1], image[1:]]))
    expected = TorchEngine(deployable).run(image)
    for form in (int8, cpu_form(int8), half_beside_int8(int8)):
        kinds = scaling(form, spec)
        assert set(kinds) <= {"Cast", "Max", "Min", "Log"}, kinds
        labels = OrtEngine(form, threads=1).run(image)["labels"]
        assert np.mean(labels == expected["labels"]) > 0.9


def test_calibration_finds_the_range_that_percentiles_leave():
    model, image = export_onnx(Deployable(trained(CLIPPED), CLIPPED), 20), pixels(CLIPPED)
    first = next(node for node in onnx.load_model_from_string(model).graph.node if node.op_type == "Conv")
    low, high = ((np.array(ends) - CLIPPED.mean) / CLIPPED.std for ends in np.transpose(CLIPPED.scale.limits))
    ranges = ranges_of(model, [image[:1], image[1:]])
    assert ranges[first.input[0]] == pytest.approx(max(-low.min(), high.max()), rel=1e-5)


@pytest.mark.parametrize("spec", [RADAR, CLIPPED], ids=["log", "clip"])
def test_windows_and_tiles_are_scaled_as_the_whole_image(spec):
    model = export_onnx(Deployable(Same(2), spec), 20)
    tiled = SegmentationModel(
        msgspec.structs.replace(spec, resize="tile"), CLASSES["sar"][:2], OrtEngine(model, threads=1)
    )
    center = np.log(np.abs(spec.scale.raw(np.array(spec.mean), np)))
    image = np.exp(np.random.default_rng(0).normal(center, 2, (50, 70, 2))).astype(np.float32)
    image[3, :9, 0] = np.nan
    whole = by_definition(np.nan_to_num(image).transpose(2, 0, 1)[None], spec)[0]
    clear = (np.abs(whole[1] - whole[0]) > 1e-3) & np.isfinite(image).all(axis=2)
    sink = ArraySink()
    predict_raster(tiled, ArraySource(image), sink, Options())
    for labels in (tiled(image).labels, sink.labels):
        np.testing.assert_array_equal(labels[clear], whole.argmax(axis=0)[clear])
        assert (labels[3, :9] == 255).all()
    assert clear.mean() > 0.9
    assert 0.1 < whole.argmax(axis=0).mean() < 0.9
