"""The linter on what the project itself exports and quantizes: no findings, and as compilers handle it."""

from pathlib import Path

import msgspec
import pytest
import torch

from deploy.bundle.manifest import InputSpec
from deploy.lint import lint, predict_int8_coverage, read_graph
from deploy.quantize.half import half_beside_int8, to_fp16
from deploy.quantize.qdq import cpu_form, insert, layers
from deploy.quantize.tensorrt_form import tensorrt_form
from distill.export.parity import device_form
from distill.export.to_onnx import export_onnx
from student.zoo import build_network
from tests.deploy.lint.test_compilers import tensorrt_refuses
from tests.deploy.lint.test_coverage import int8_on_onnxruntime, int8_on_tensorrt

TENSORRT = ("tensorrt-10", "tensorrt-11", "tensorrt-rtx")
CPU = ("onnxruntime", "openvino")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported() -> bytes:
    torch.manual_seed(0)
    network = build_network("pspnet/resnet18", 3, 5, output_stride=16, head_channels=32)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # fresh norms hide errors in biases and zero branches
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.normal_(module.bias)
    spec = InputSpec(("R", "G", "B"), 96, 144, "uint8", "NHWC", (110.0,) * 3, (60.0,) * 3)
    return export_onnx(device_form(network, spec, fold=True), 20)


def quantized(model: bytes, float_layers: tuple[str, ...] = ()) -> bytes:
    ranges = {tensor: 4.0 for layer in layers(model) for tensor in layer.tensors}
    return insert(model, ranges, float_layers)


def complaints(model: bytes, *targets: str) -> set[str]:
    """The rules that a model breaks for these targets, notes excluded."""
    return {finding.rule for target in targets for finding in lint(model, target) if finding.level != "note"}


def test_fp32_is_clean_for_all(exported: bytes):
    assert complaints(exported, *TENSORRT, *CPU) == set()
    assert tensorrt_refuses(exported) is None


def test_int8_is_clean_for_tensorrt_and_wholly_in_int8(exported: bytes):
    rounded = quantized(exported)
    assert complaints(rounded, *TENSORRT) == {"float32-product", "unfused-residual"}
    model = tensorrt_form(rounded)
    assert complaints(model, *TENSORRT) == set()
    coverage = predict_int8_coverage(read_graph(model), "tensorrt-rtx")
    assert coverage.int8_convolutions == coverage.convolutions == int8_on_tensorrt(model)
    assert "int8-activations" in complaints(model, "onnxruntime")


def test_cpu_form_is_clean_for_cpus_and_refused_by_tensorrt(exported: bytes, tmp_path: Path):
    model = cpu_form(quantized(exported))
    assert complaints(model, *CPU) == set()
    coverage = predict_int8_coverage(read_graph(model), "onnxruntime")
    assert coverage.int8_convolutions == int8_on_onnxruntime(model, tmp_path)
    assert coverage.int8_share > 0.97
    assert "zero-point" in complaints(model, "tensorrt-rtx")
    assert tensorrt_refuses(model)


def test_mixed_precision_is_predicted(exported: bytes, tmp_path: Path):
    names = [layer.name for layer in layers(exported)]
    rounded = quantized(exported, tuple(names[::3]))
    model = tensorrt_form(rounded)
    assert predict_int8_coverage(read_graph(model), "tensorrt-rtx").int8_convolutions == int8_on_tensorrt(
        model
    )
    unsigned = cpu_form(rounded)
    predicted = predict_int8_coverage(read_graph(unsigned), "onnxruntime").int8_convolutions
    assert predicted == int8_on_onnxruntime(unsigned, tmp_path)


RADAR = InputSpec(("VV", "VH"), 96, 144, "float32", "NCHW", mean=(3.0, 2.0), std=(1.2, 0.8), nodata="nan")
SCALED = [
    msgspec.structs.replace(RADAR, log_floor=(2e-5, 4.0)),
    msgspec.structs.replace(RADAR, clip=((0.5, 1.5e5), (-7.0, 9.0))),
]


@pytest.mark.parametrize("spec", SCALED, ids=["log", "percentile"])
def test_scales_of_pixels_are_compiled_in_every_precision(spec: InputSpec):
    torch.manual_seed(0)
    network = build_network("edge-nano", 2, 2)
    exported = export_onnx(device_form(network, spec, fold=True), 20)
    rounded = tensorrt_form(quantized(exported))
    for model in (exported, to_fp16(exported), rounded, half_beside_int8(rounded)):
        assert complaints(model, *TENSORRT) == set()
        assert tensorrt_refuses(model) is None
    coverage = predict_int8_coverage(read_graph(rounded), "tensorrt-rtx")
    assert coverage.int8_convolutions == coverage.convolutions == int8_on_tensorrt(rounded)
