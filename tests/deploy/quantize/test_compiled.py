"""The INT8 and FP16 models in TensorRT-RTX, which compiles without a GPU: accepted, and run in that precision."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from deploy.backends.tensorrt_gpu import layer_report
from deploy.backends.tensorrt_gpu.layer_report import LayerReport
from deploy.quantize.formats import FP8
from deploy.quantize.half import to_fp16
from deploy.quantize.qdq import cpu_form, insert, layers
from deploy.quantize.tensorrt_form import tensorrt_form
from tests.deploy.quantize.nets import images, operators, ranges_of, residual_net, run


def compiled(model: bytes, target: str = "SM86") -> LayerReport:
    """The layers of the engine for a compute capability."""
    trt = pytest.importorskip("tensorrt_rtx")

    class Log(trt.ILogger):
        def __init__(self):
            super().__init__()
            self.lines = []

        def log(self, severity, text):
            self.lines.append((severity, text))

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    assert parser.parse(model), [parser.get_error(i).desc() for i in range(parser.num_errors)]
    works = layer_report.operators(network)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, target), 0)
    profile, image = builder.create_optimization_profile(), network.get_input(0)
    profile.set_shape(image.name, *[(1, *tuple(image.shape)[1:])] * 3)
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None
    errors = [text for severity, text in log.lines if severity <= trt.ILogger.ERROR]
    assert not errors
    report = layer_report.parse(next(text for _, text in log.lines if text.startswith("Layers:")), works)
    assert report is not None
    return report


def types(report: LayerReport, convolution: bool = True) -> Counter[str]:
    """How many convolutions, or matrix products, compute in each type."""
    return Counter(one.precision for one in report.products if one.convolution is convolution)


def scaled_per_tensor(model: bytes) -> bytes:
    """The Q/DQ model with one scale a weight tensor, the largest of its channels."""
    proto = onnx.load_model_from_string(model)
    values = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in values:
            weight, scale = (numpy_helper.to_array(values[name]) for name in node.input[:2])
            ratio = (scale / scale.max()).reshape(-1, *[1] * (weight.ndim - 1))
            for name, value in zip(
                node.input,
                (np.round(weight * ratio).astype(np.int8), scale.max(), np.int8(0)),
                strict=True,
            ):
                values[name].CopyFrom(numpy_helper.from_array(np.asarray(value), name))
            del node.attribute[:]
    return proto.SerializeToString()


@pytest.fixture(scope="module")
def fp32():
    return residual_net(width=32)


def test_every_convolution_becomes_int8_and_the_products_half(fp32):
    report = compiled(tensorrt_form(insert(fp32, ranges_of(fp32, images()))))
    assert types(report) == {"int8": 10}
    assert types(report, convolution=False) == {"float16": 2}


def test_layers_left_in_float_are_half_in_the_engine(fp32):
    kept = ["pyramid.direct", "backbone.layer2.0.conv1"]
    mixed = tensorrt_form(insert(fp32, ranges_of(fp32, images()), kept))
    assert types(compiled(mixed)) == {"float16": 2, "int8": 8}


def test_every_convolution_becomes_half(fp32):
    report = compiled(to_fp16(fp32))
    assert types(report) == {"float16": 10}
    assert types(report, convolution=False) == {"float16": 2}


@pytest.mark.parametrize("target", ["SM89", "SM120"])
def test_every_convolution_becomes_fp8_and_writes_half_precision(fp32, target):
    report = compiled(tensorrt_form(insert(fp32, ranges_of(fp32, images()), format=FP8)), target)
    assert types(report) == {"float8": 9, "float16": 1}  # the stem's kernel is too large
    assert types(report, convolution=False) == {"float16": 2}
    convolutions = [layer for layer in report.layers if layer.kind == "correlation"]
    assert {layer.outputs for layer in convolutions} == {("float16",)}


def test_a_pair_between_convolution_and_sum_keeps_them_apart(fp32):
    """A fused convolution reads the residual as its second input, and writes float16 after sum and ReLU.

    TensorRT-RTX 1.7 fuses nothing with an INT8 convolution whose weights have a scale a channel, so this is seen with
    one scale a tensor.
    """

    def sums_in_convolutions(model):
        convolutions = [
            layer for layer in compiled(scaled_per_tensor(model)).layers if layer.kind == "correlation"
        ]
        assert len(convolutions) == 10
        return sum(len(layer.inputs) == 2 and layer.inputs[0] == "int8" for layer in convolutions)

    s8 = insert(fp32, ranges_of(fp32, images()))
    assert sums_in_convolutions(s8) == 0
    assert sums_in_convolutions(tensorrt_form(s8)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet18", "mobilenetv3_large_100"])
def test_an_exported_student_runs_in_integers_everywhere(backbone, tmp_path):
    torch = pytest.importorskip("torch")
    from deploy.bundle.manifest import InputSpec
    from distill.export.parity import device_form
    from distill.export.to_onnx import export_onnx
    from student.zoo import build_network

    torch.manual_seed(0)
    network = build_network(f"pspnet/{backbone}", 3, 11, output_stride=16, head_channels=64)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as after training: no bias is 0
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.2)
    spec = InputSpec(("R", "G", "B"), 96, 144, "uint8", "NHWC", (110.0,) * 3, (60.0,) * 3)
    model = export_onnx(device_form(network, spec, fold=True), 20)
    batches = images(4, size=(96, 144))
    s8 = insert(model, ranges_of(model, batches))
    assert len(s8) <= 0.3 * len(model)

    convolutions = [layer.name for layer in layers(model) if layer.kind == "Conv"]
    file = str(tmp_path / "optimized.onnx")
    run(cpu_form(s8), batches[:1], dump=file)
    kinds = operators(file)
    assert (
        kinds.count("QLinearConv") == len(convolutions) - 1
    )  # the classifier's outputs are the logits, in float
    assert kinds.count("Conv") + kinds.count("FusedConv") == 1

    report, half_report = compiled(tensorrt_form(s8)), compiled(to_fp16(model))
    assert set(types(report)) == {"int8"}
    assert set(types(half_report)) == {"float16"}
    assert set(types(report, convolution=False)) == set(types(half_report, convolution=False)) == {"float16"}
    labels, half = run(model, batches)[0], run(to_fp16(model), batches)[0]
    assert (labels == half).mean() >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "products"), [("test_vit", 24), ("test_convnext", 18)])
def test_a_transformer_multiplies_its_weights_in_integers(backbone, products):
    """What is left are products of two activations, and matrices of pooling and upsampling."""
    torch = pytest.importorskip("torch")
    from deploy.bundle.manifest import InputSpec
    from distill.export.parity import device_form
    from distill.export.to_onnx import export_onnx
    from teacher.pspnet import PSPNet

    torch.manual_seed(0)
    spec = InputSpec(("R", "G", "B"), 96, 144, "uint8", "NHWC", (110.0,) * 3, (60.0,) * 3)
    model = export_onnx(device_form(PSPNet(backbone, 3, 11, head_channels=32), spec, fold=True), 20)
    report = compiled(tensorrt_form(insert(model, ranges_of(model, images(2, size=(96, 144))))))
    assert set(types(report)) == {"int8"}
    matrices = types(report, convolution=False)
    assert matrices["int8"] == products
    assert set(matrices) == {"int8", "float16"}
