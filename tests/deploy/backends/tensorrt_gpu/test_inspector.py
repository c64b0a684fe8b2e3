"""The engine's inspector as a second witness: its JSON in two forms, and forms that are not known."""

import json

import pytest

from deploy.backends.tensorrt_gpu.inspector import inspect_plan, read_layers
from deploy.backends.tensorrt_gpu.layer_report import summary
from deploy.backends.tensorrt_gpu.options import BuildOptions
from tests.deploy.backends.tensorrt_gpu.builder_fakes import Fake, spec

INT8 = "Thirty-two wide channel vectorized row major Int8 format"
# As TensorRT 10 lists layers (NVIDIA/TensorRT, samples/common and issues); shortened, not from a build of this project.
TENSORRT_10 = {
    "Layers": [
        {
            "Name": "image_q",
            "LayerType": "Reformat",
            "Inputs": [
                {"Name": "image", "Dimensions": [1, 3, 64, 64], "Format/Datatype": "Row major linear FP32"}
            ],
            "Outputs": [{"Name": "image_q", "Dimensions": [1, 3, 64, 64], "Format/Datatype": INT8}],
            "Metadata": "[ONNX Layer: image_Quantize]",
        },
        {
            "Name": "/net/conv0/Conv + /net/Relu",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": "image_q", "Dimensions": [1, 3, 64, 64], "Format/Datatype": INT8}],
            "Outputs": [{"Name": "x", "Dimensions": [1, 32, 64, 64], "Format/Datatype": INT8}],
            "Weights": {"Type": "Int8", "Count": 864},
            "Bias": {"Type": "Float", "Count": 32},
            "Metadata": "[ONNX Layer: /net/conv0/Conv]\x1e[ONNX Layer: /net/Relu]",
        },
    ],
    "Bindings": ["image", "labels"],
}
CONSTANTS = {
    "Layers": [
        {
            "Name": "node_Conv_myl0_3",
            "LayerType": "correlation",
            "Inputs": [{"Name": "image_q", "Datatype": "Int8", "Format": "(NHWC) Channel major format"}],
            "Constants": [{"Name": "w", "Datatype": "Int8"}, {"Name": "b", "Datatype": "Float"}],
            "Outputs": [{"Name": "x", "Datatype": "Half"}],
            "Metadata": "[ONNX Layer: /net/conv0/Conv]",
        }
    ]
}
WORKS = {"/net/conv0/Conv": "convolution", "/net/Relu": "other", "image_Quantize": "conversion"}


@pytest.mark.parametrize("found", [TENSORRT_10, CONSTANTS], ids=["weights", "constants"])
def test_layers(found):
    report = read_layers(found, WORKS)
    assert report is not None
    figures = summary(report)
    assert (figures.convolutions, figures.int8_convolutions) == (1, 1)
    assert report.products[0].onnx == "/net/conv0/Conv"


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"Layers": []},
        {"Layers": ["conv + relu"]},  # built without detailed verbosity
        {"Layers": [{"Name": "conv", "LayerType": "Conv", "Outputs": [{"Name": "x"}]}]},
        {"Layers": None},
    ],
)
def test_other_forms_are_no_report(found):
    assert read_layers(found, WORKS) is None


def runtime(fake, information):
    """The library with a runtime that loads a plan and describes it."""
    real = fake.real
    inspector = spec(real.EngineInspector, get_engine_information=lambda format: information)
    engine = spec(real.ICudaEngine, create_engine_inspector=lambda: inspector)
    made = spec(real.Runtime, deserialize_cuda_engine=lambda plan: engine if information else None)
    fake.Runtime = lambda log: made
    return made


@pytest.mark.parametrize("version", ["10.3.0", "11.4.0"])
def test_what_was_compiled_is_loaded_and_described(version):
    fake = Fake(version)
    made = runtime(fake, json.dumps(TENSORRT_10))
    options = BuildOptions("tensorrt", "fp16", version_compatible=True, dla_core=1)
    assert inspect_plan(fake, memoryview(b"plan"), options) == TENSORRT_10
    assert (made.engine_host_code_allowed, made.DLA_core) == (True, 1)
    runtime(fake, "no JSON")
    assert inspect_plan(fake, memoryview(b"plan"), options) is None
    runtime(fake, "")
    assert inspect_plan(fake, memoryview(b"plan"), options) is None
