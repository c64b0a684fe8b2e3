"""Odd models, which no exporter writes, are linted or refused in one line; they never crash the linter."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.errors import UserError
from deploy.lint import TARGETS, lint, predict_int8_coverage, read_graph
from deploy.lint.dla import LAYERS
from deploy.lint.operators import ON_TENSORRT
from deploy.lint.pairs import CLAMPS, INT8_OPS, MOVES
from tests.deploy.lint.lint_examples import changed, quantized, simple, weights

PAIR = ("QuantizeLinear", "DequantizeLinear")
LOOKED_AT = sorted({*LAYERS, *ON_TENSORRT, *MOVES, *CLAMPS, *INT8_OPS, *PAIR, "Cast", "Constant"})
"""The operators that a rule looks at more closely."""


def alone(op: str, inputs: list[str], domain: str, opset: int = 18, **attributes: Any) -> bytes:
    """A model of one operator, whose result a Conv and a Q read."""
    nodes = [
        helper.make_node(op, inputs, ["t"], domain=domain, **attributes),
        helper.make_node("Conv", ["t", "w"], ["y"]),
        helper.make_node("QuantizeLinear", ["t", "s"], ["z"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8, 8]) for name in "xy")
    constants = [
        numpy_helper.from_array(weights(), "w"),
        numpy_helper.from_array(np.ones((), np.float32), "s"),
    ]
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.foo", 1)]
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def convolution(weight: np.ndarray | None = None, settings: str = "") -> bytes:
    return simple(f"y = Conv {settings} (x, w)", {"w": weights() if weight is None else weight})


def with_weight(**fields: Any) -> bytes:
    """A convolution with these fields of its weight's protobuf message changed."""

    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        for name, value in fields.items():
            if name == "dims":
                tensor.dims[0] = value
            else:
                setattr(tensor, name, value)

    return changed(convolution(), change)


def rounded(**constants: np.ndarray | np.generic) -> bytes:
    nodes = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Conv(d, w)"
    values = {"s": np.float32(1), "z": np.int8(0), "w": weights()}
    return simple(nodes, values | constants)


def cases() -> Iterator[tuple[str, bytes]]:
    for op in LOOKED_AT:
        for inputs in ([], ["x"]):
            for domain in ("com.foo", "com.microsoft", "com.microsoft.nchwc"):
                yield f"{domain}:{op}-{len(inputs)}", alone(op, inputs, domain)
            for opset in (1, 9, 99):
                yield f"{op}-{len(inputs)}-opset{opset}", alone(op, inputs, "", opset)
    for domain in ("", "com.foo"):
        yield f"{domain}:Clip-text", alone("Clip", ["x"], domain, max="s")
        yield f"{domain}:Reshape-perm", alone("Reshape", ["x", "x"], domain, perm=3)
        yield f"{domain}:AveragePool-dilations", alone("AveragePool", ["x"], domain, 11, dilations=3)
        yield f"{domain}:Constant-text", alone("Constant", [], domain, 9, value_float="s")
    yield "stride 0", convolution(settings="<strides=[0,0]>")
    yield "dilation 0", convolution(settings="<dilations=[0,0]>")
    yield "no strides", convolution(settings="<strides: ints=[], dilations: ints=[], kernel_shape: ints=[]>")
    yield "no channels out", convolution(np.zeros((0, 4, 3, 3), np.float32))
    yield "no channels in", convolution(np.zeros((4, 0, 3, 3), np.float32))
    yield "flat weight", convolution(np.zeros(4, np.float32))
    yield "short data", with_weight(raw_data=b"abc")
    yield "negative size", with_weight(dims=-3)
    yield "type 77", with_weight(data_type=77)
    yield "no scale", rounded(s=np.zeros(0, np.float32))
    yield "text scale", rounded(s=np.array(["a"], object))
    yield "text zero point", rounded(z=np.array(["a"], object))
    yield "NaN zero point", rounded(z=np.float32(np.nan))
    yield "other zero point", rounded(s=np.ones(3, np.float32), z=np.zeros(5, np.int8))
    yield "long name", changed(with_weight(raw_data=b""), far_away)


def far_away(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="a" * 5000)


@pytest.mark.parametrize("model", [pytest.param(model, id=name) for name, model in cases()])
def test_odd_models_are_linted_or_refused(model: bytes, tmp_path_factory: pytest.TempPathFactory):
    for target in TARGETS:
        with suppress(UserError):
            lint(model, target, tmp_path_factory.getbasetemp())
            predict_int8_coverage(read_graph(model), target)


def test_operators_of_others_are_not_taken_for_those_of_onnx():
    graph = read_graph(alone("Conv", ["x", "w"], "com.foo"))
    assert [str(node) for node in graph.of("Conv")] == ["Conv y"]
    assert [str(node) for node in graph.of("com.foo:Conv")] == ["com.foo:Conv t"]


def test_pairs_of_onnxruntime_are_pairs():
    def change(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.domain = "com.microsoft" if node.op_type in PAIR else ""
        model.opset_import.add(domain="com.microsoft", version=1)

    [before, after] = [read_graph(model) for model in (quantized(), changed(quantized(), change))]
    assert (
        predict_int8_coverage(after, "onnxruntime").pairs
        == predict_int8_coverage(before, "onnxruntime").pairs
        == 2
    )


@pytest.mark.parametrize("target", [target for target in TARGETS if target != "dla"])
@pytest.mark.parametrize(("scale", "is_wasted"), [(0.3, False), (0.2, True)], ids=["same grid", "other grid"])
def test_max_pooling_between_pairs_on_one_grid_is_int8(scale: float, is_wasted: bool, target: str):
    pool = "t = MaxPool <kernel_shape=[2,2]> (y1)"
    after = f"r = Relu(c) q1 = QuantizeLinear(r, k, z) y1 = DequantizeLinear(q1, k, z) {pool}"
    model = quantized(after=after, k=np.float32(scale))
    findings = [finding for finding in lint(model, target) if finding.rule == "unfused-pair"]
    where = ["DequantizeLinear y1"] if is_wasted and target.startswith("tensorrt") else []
    assert [one.where for one in findings if one.where != "DequantizeLinear y"] == where


@pytest.mark.parametrize("target", ["tensorrt-10", "tensorrt-rtx"])
@pytest.mark.parametrize(
    ("between", "scale", "is_wasted"),
    [("Relu", 0.3, False), ("Relu", 0.2, True), ("HardSwish", 0.2, False)],
    ids=["clamp on one grid", "clamp on another grid", "function in float"],
)
def test_pairs_that_files_for_cpus_need_are_no_waste(
    between: str, scale: float, is_wasted: bool, target: str
):
    after = f"q1 = QuantizeLinear(c, k, z) y1 = DequantizeLinear(q1, k, z) t = {between}(y1)"
    model = quantized(after=after, k=np.float32(scale))
    findings = [finding for finding in lint(model, target) if finding.rule == "unfused-pair"]
    assert ("DequantizeLinear y1" in [one.where for one in findings]) is is_wasted
