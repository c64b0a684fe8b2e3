"""The INT8 and FP16 models in TensorRT-RTX, which compiles without a GPU: accepted, and run in that precision."""

import re

import pytest

from deploy.quantize.half import to_fp16
from deploy.quantize.qdq import cpu_form, insert, layers
from tests.deploy.quantize.nets import images, operators, ranges_of, residual_net, run

CONVOLUTION = re.compile(
    r"LayerType: correlation, Inputs: \[(?P<inputs>.*?)\], Constants: \[(?P<weights>.*?)\], Outputs"
)
TYPE = re.compile(r"Datatype: (\w+)")


def compiled(model: bytes) -> list[tuple[str, str]]:
    """Compile for Ampere and return the types of activations and weights of every convolution in the engine."""
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
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    profile, image = builder.create_optimization_profile(), network.get_input(0)
    profile.set_shape(image.name, *[(1, *tuple(image.shape)[1:])] * 3)
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None
    errors = [text for severity, text in log.lines if severity <= trt.ILogger.ERROR]
    assert not errors
    report = next(text for _, text in log.lines if text.startswith("Layers:"))
    found = CONVOLUTION.finditer(report)
    return [(TYPE.findall(match["inputs"])[0], TYPE.findall(match["weights"])[0]) for match in found]


@pytest.fixture(scope="module")
def fp32():
    return residual_net(width=32)


def test_every_convolution_becomes_int8(fp32):
    s8 = insert(fp32, ranges_of(fp32, images()))
    assert compiled(s8) == [("Int8", "Int8")] * 10


def test_layers_left_in_float_are_float_in_the_engine(fp32):
    mixed = insert(fp32, ranges_of(fp32, images()), ["pyramid.direct", "backbone.layer2.0.conv1"])
    assert sorted(compiled(mixed)) == [("Float", "Float")] * 2 + [("Int8", "Int8")] * 8


def test_every_convolution_becomes_half(fp32):
    assert compiled(to_fp16(fp32)) == [("Half", "Half")] * 10


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

    assert set(compiled(s8)) == {("Int8", "Int8")}
    assert set(compiled(to_fp16(model))) == {("Half", "Half")}
    labels, half = run(model, batches)[0], run(to_fp16(model), batches)[0]
    assert (labels == half).mean() >= 0.99
