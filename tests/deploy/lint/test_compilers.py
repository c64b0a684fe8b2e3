"""The real compilers refuse what the linter calls an error, and accept what it does not report."""

import pickle
import subprocess
import sys
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest

from deploy.backends.openvino_cpu import shared_core
from deploy.lint import lint
from deploy.lint.operators import LACKS
from tests.deploy.lint.lint_examples import EXAMPLES, Example, resized, simple, typed, weights

OURS = {"dynamic-size"}
"""Refused by edgedistill, not by compilers."""


def errors(model: bytes, target: str) -> set[str]:
    return {finding.rule for finding in lint(model, target) if finding.level == "error"} - OURS


@cache
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")


def compile_on_tensorrt(model: bytes) -> tuple[str | None, list[str]]:
    """Compile ahead of time with TensorRT-RTX; return the reason of a refusal (None without one) and all messages."""
    trt = rtx()

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[tuple[Any, str]] = []

        def log(self, severity: Any, message: str) -> None:
            self.messages.append((severity, message))

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        return parser.get_error(0).desc() if parser.num_errors else "not parsed", []
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    for tensor in map(network.get_input, range(network.num_inputs)):
        if -1 in tensor.shape:
            profile = builder.create_optimization_profile()
            profile.set_shape(tensor.name, *[[max(size, 1) for size in tensor.shape]] * 3)
            config.add_optimization_profile(profile)
    built = builder.build_serialized_network(network, config) is not None
    failures = [message for severity, message in log.messages if severity <= trt.ILogger.ERROR]
    return None if built else str(failures[:1]), [message for _, message in log.messages]


def tensorrt_refuses(model: bytes) -> str | None:
    """Why TensorRT-RTX does not compile this model; None when it does."""
    return compile_on_tensorrt(model)[0]


def onnxruntime_refuses(model: bytes) -> str | None:
    """Why ONNX Runtime does not load this model on the CPU; None when it does."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base but this
        return str(error)
    return None


def openvino_refuses(model: bytes) -> str | None:
    """Why OpenVINO does not compile this model for the CPU; None when it does."""
    pytest.importorskip("openvino", reason="openvino is not installed")
    core, _ = shared_core()
    try:
        core.compile_model(core.read_model(model, b""), "CPU")
    except RuntimeError as error:
        return str(error)
    return None


REFUSES = {
    "tensorrt-rtx": tensorrt_refuses,
    "onnxruntime": onnxruntime_refuses,
    "openvino": openvino_refuses,
}


@pytest.mark.parametrize(
    "example",
    [one for one in EXAMPLES if one.level == "error" and one.rule not in OURS],
    ids=lambda one: f"{one.rule}-{one.target}",
)
def test_errors_are_refused_and_their_neighbors_pass(example: Example):
    assert REFUSES[example.target](example.bad) is not None
    assert REFUSES[example.target](example.good) is None


@pytest.mark.parametrize(
    "example", [one for one in EXAMPLES if one.level != "error"], ids=lambda one: f"{one.rule}-{one.target}"
)
def test_warnings_and_notes_are_no_refusals(example: Example):
    if example.target in REFUSES and not errors(example.bad, example.target):
        assert REFUSES[example.target](example.bad) is None


SETTINGS = {
    "antialias": (resized(", antialias=1"), resized(", antialias=0")),
    "policy": (
        resized(', keep_aspect_ratio_policy="not_larger"'),
        resized(', keep_aspect_ratio_policy="stretch"'),
    ),
    "crop": (
        resized(', coordinate_transformation_mode="tf_crop_and_resize"'),
        resized(', coordinate_transformation_mode="align_corners"'),
    ),
    "cubic": (None, simple('y = Resize <mode="cubic"> (x, , k)', {"k": np.array([1, 1, 2, 2], np.float32)})),
    "dilated pool": (
        simple("y = AveragePool <kernel_shape=[2,2], dilations=[2,2]> (x)"),
        simple("y = AveragePool <kernel_shape=[2,2], dilations=[1,1]> (x)"),
    ),
    "indices": (
        simple("y, i = MaxPool <kernel_shape=[2,2]> (x)"),
        simple("y = MaxPool <kernel_shape=[2,2]> (x)"),
    ),
    "scatter": (
        simple('y = ScatterND <reduction="add"> (x, i, x)', {"i": np.array([[0]])}),
        simple("y = ScatterND(x, i, x)", {"i": np.array([[0]])}),
    ),
    "training": (
        simple("y = BatchNormalization <training_mode=1> (x, k, k, k, k)", {"k": np.ones(4, np.float32)}),
        simple("y = BatchNormalization(x, k, k, k, k)", {"k": np.ones(4, np.float32)}),
    ),
    "dropout": (
        simple("y = Dropout(x, r, t)", {"r": np.float32(0.5), "t": np.bool_(True)}),
        simple("y = Dropout(x, r, t)", {"r": np.float32(0.5), "t": np.bool_(False)}),
    ),
    "normalized": (
        simple("y, m = LayerNormalization(x, k)", {"k": np.ones(16, np.float32)}),
        simple("y = LayerNormalization(x, k)", {"k": np.ones(16, np.float32)}),
    ),
    "uint8 weights, quantized here": (
        None,
        simple(
            "q = QuantizeLinear(w, s, z) d = DequantizeLinear(q, s, z) y = Conv(x, d)",
            {"w": weights(), "s": np.float32(1), "z": np.uint8(0)},
        ),
    ),
    "top": (
        simple("y, i = TopK(x, k)", {"k": np.array([3841])}, x="float[1,4000]"),
        simple("y, i = TopK(x, k)", {"k": np.array([3840])}, x="float[1,4000]"),
    ),
}


@pytest.mark.parametrize(("bad", "good"), SETTINGS.values(), ids=SETTINGS.keys())
def test_settings_that_tensorrt_refuses(bad: bytes | None, good: bytes):
    if bad is not None:
        assert errors(bad, "tensorrt-rtx") == {"unsupported-setting"}
        assert tensorrt_refuses(bad)
    assert not errors(good, "tensorrt-rtx")
    assert tensorrt_refuses(good) is None


@pytest.mark.parametrize(
    ("kind", "dtype", "known"),
    [
        ("float", np.float32, True),
        ("double", np.float64, True),
        ("int64", np.int64, True),
        ("int16", np.int16, False),
        ("uint16", np.uint16, False),
        ("uint64", np.uint64, False),
    ],
)
def test_types_that_tensorrt_knows(kind: str, dtype: type, known: bool):
    model = typed(kind, dtype)
    assert ("unsupported-type" not in errors(model, "tensorrt-rtx")) == known
    assert (tensorrt_refuses(model) is None) == known


def test_list_of_operators_is_that_of_the_parser():
    trt = rtx()
    log = trt.Logger(trt.Logger.ERROR)
    parser = trt.OnnxParser(trt.Builder(log).create_network(0), log)
    names = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    plugins = LACKS["tensorrt-rtx"] - LACKS["tensorrt-11"]
    unsupported = {name for name in names if not parser.supports_operator(name)}
    assert {name for name in LACKS["tensorrt-rtx"] if name in names} - plugins == unsupported - plugins


@pytest.mark.slow
@pytest.mark.parametrize("target", REFUSES)
def test_no_false_error_on_the_models_of_the_onnx_project(target: str):
    """1,900 models, one per operator and setting: what the linter calls an error is refused."""
    if target == "tensorrt-rtx":
        rtx()
    models = onnx_node_models()
    suspects = {name: model for name, model in models.items() if errors(model, target)}
    assert len(suspects) > 10
    assert [name for name, model in suspects.items() if REFUSES[target](model) is None] == []


@cache
def onnx_node_models() -> dict[str, bytes]:
    """The models of ONNX's backend tests, made in a separate process because computing them raises warnings."""
    code = """if True:
        import pickle, sys, warnings
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases
        models = {case.name: case.model.SerializeToString() for case in collect_testcases(None) if case.model}
        pickle.dump(models, sys.stdout.buffer)
    """
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, check=True)
    return pickle.loads(result.stdout)
