"""Each rule of the linter on the smallest model that breaks it, and on the nearest one that does not."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import deploy.lint
from deploy.errors import UserError
from deploy.lint import TARGETS, lint
from tests.deploy.lint.lint_examples import (
    CONV,
    EXAMPLES,
    HALF,
    QUANTIZED,
    RELU,
    UNSIGNED,
    Example,
    external,
    make,
    pair,
    quantized,
    resized,
    simple,
    weights,
)


def found(model: bytes, target: str) -> set[tuple[str, str]]:
    return {(finding.rule, finding.level) for finding in lint(model, target)}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: f"{one.rule}-{one.level}-{one.target}")
def test_rule_finds_the_bad_model_only(example: Example):
    assert (example.rule, example.level) in found(example.bad, example.target)
    assert example.rule not in {rule for rule, _ in found(example.good, example.target)}


def test_every_rule_has_an_example():
    sources = Path(deploy.lint.__file__).parent.glob("*.py")
    ids = {name for path in sources for name in re.findall(r'"([a-z0-9]+(?:-[a-z0-9]+)+)"', path.read_text())}
    ids -= {*TARGETS, "utf-8"}
    assert ids == {example.rule for example in EXAMPLES}


@pytest.mark.parametrize("target", TARGETS)
def test_findings_tell_where_what_and_remedy_in_one_line_each(target: str):
    for finding in (finding for example in EXAMPLES for finding in lint(example.bad, target)):
        for text in (finding.where, finding.message, finding.remedy):
            assert text
            assert "\n" not in text


@pytest.mark.parametrize(
    ("model", "target"),
    [
        *((QUANTIZED, target) for target in ("tensorrt-10", "tensorrt-11", "tensorrt-rtx", "openvino")),
        *((UNSIGNED, target) for target in ("onnxruntime", "openvino")),
        *((CONV, target) for target in TARGETS if target != "dla"),
        (HALF, "dla"),
    ],
)
def test_good_models_are_clean(model: bytes, target: str):
    assert lint(model, target) == []


def test_each_int8_form_suits_its_targets_only():
    assert ("zero-point", "error") in found(UNSIGNED, "tensorrt-10")
    assert ("int8-activations", "warning") in found(QUANTIZED, "onnxruntime")
    assert not [level for _, level in found(QUANTIZED, "onnxruntime") if level == "error"]


def test_unknown_target_is_a_user_error():
    with pytest.raises(UserError, match="target 'tensorrt-9': is unknown; choose one of tensorrt-10"):
        lint(RELU, "tensorrt-9")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n", "ONNX"),
        (RELU[:40], "ONNX"),
        (b"\x08\x0a", "no graph"),
        (simple("y = Conv(x)"), "Conv y lacks inputs or outputs"),
        (simple("y = Softmax <axis=[1]> (x)"), "Softmax y has an odd axis"),
        (RELU.replace(b"Relu", b"Rel\xff"), "names that are not text"),
        (simple("a = Relu(b) b = Relu(a) y = Relu(a)"), "[ab] depends on itself"),
    ],
)
def test_what_is_no_model_is_a_user_error(model: bytes, message: str):
    with pytest.raises(UserError, match=message):
        lint(model, "onnxruntime")


@given(st.lists(st.tuples(st.integers(0, len(QUANTIZED) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_models_are_linted_or_refused(edits: list[tuple[int, int]]):
    model = bytearray(QUANTIZED)
    for place, byte in edits:
        model[place] = byte
    for target in ("tensorrt-11", "dla", "onnxruntime"):
        with suppress(UserError):
            lint(bytes(model), target)


def test_rules_see_inside_local_functions():
    text = """
        g (float[1,4,16,16] x) => (float[] y) { y = my.Twice(x) }
        <domain: "my", opset_import: ["" : 20]> Twice (a) => (b) { b = Det(a) }
    """
    assert {("unsupported-operator", "error")} == found(make(text), "tensorrt-rtx")


def test_rules_see_inside_branches():
    text = """
        g (float[1,4,16,16] x, bool c) => (float[] y) {
            y = If (c) <
                then_branch = t () => (float[] u) { u = Det(x) }, else_branch = e () => (float[] v) { v = Relu(x) }
            >
        }
    """
    assert {("unsupported-operator", "error")} == found(make(text), "tensorrt-rtx")


def test_external_data_beside_the_file_are_read(tmp_path: Path):
    (tmp_path / "gone.bin").write_bytes(np.full((8, 4, 3, 3), np.nan, np.float32).tobytes())
    rules = [finding.rule for finding in lint(external(CONV), "openvino", tmp_path)]
    assert rules == ["not-finite"]


def test_scales_may_be_constant_nodes():
    nodes = """
        s = Constant <value_float = 0.1> () z = Constant <value = int8 {3}> ()
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Conv(d, w)
    """
    assert ("zero-point", "error") in found(simple(nodes, {"w": weights()}), "tensorrt-rtx")


@pytest.mark.parametrize(
    ("largest", "absorbed"), [(6.0, True), (5.0, True), (7.0, False)], ids=["exact", "inside", "cut off"]
)
def test_a_clip_disappears_where_nothing_is_cut_off(largest: float, absorbed: bool):
    edit: dict[str, Any] = {"low": np.float32(0), "high": np.float32(6), "ys": np.float32(largest / 255)}
    model = quantized(after="t = Clip(c, low, high)", zero=np.uint8(0), **edit)
    assert ("clamp-in-float" in {rule for rule, _ in found(model, "onnxruntime")}) == (not absorbed)


def test_order_of_nodes_does_not_matter():
    nodes = "y = Sigmoid(d) d = DequantizeLinear(q, s, z) q = QuantizeLinear(x, s, z)"
    shuffled = simple(nodes, {"s": np.float32(0.1), "z": np.int8(0)})
    assert found(shuffled, "tensorrt-rtx") == found(pair(), "tensorrt-rtx")


DLA_REFUSES = {
    "kernel": simple("y = Conv(x, w)", {"w": weights(4, 4, 33)}, x="float[1,4,64,64]"),
    "stride": simple("y = Conv <strides=[9,9]> (x, w)", {"w": weights()}),
    "dilation": simple("y = Conv <dilations=[33,33]> (x, w)", {"w": weights()}, x="float[1,4,80,80]"),
    "buffer": simple("y = Conv(x, w)", {"w": weights(4, 512)}, x="float[1,512,8,400]"),
    "deconvolution": simple("y = ConvTranspose <pads=[1,1,1,1]> (x, w)", {"w": weights(4, 4)}),
    "window": simple("y = AveragePool <kernel_shape=[9,9]> (x)"),
    "clip": simple("y = Clip(x, a, b)", {"a": np.float32(-1), "b": np.float32(6)}),
    "concat": simple("y = Concat <axis=2> (x, x)"),
    "corners": resized(', coordinate_transformation_mode="align_corners"'),
    "factor": simple('y = Resize <mode="linear"> (x, , k)', {"k": np.array([1, 1, 8, 8], np.float32)}),
    "rank": simple("y = Reshape(x, k)", {"k": np.array([1, 4, 256])}),
    "matrix": simple("y = MatMul(k, x)", {"k": np.ones((3, 16), np.float32)}),
    "softmax": simple("y = Softmax <axis=1> (x)"),
    "size": simple("y = Relu(x)", x="float[1,4,2,8193]"),
    "batch": simple("y = Relu(x)", x="float[4097,4,2,2]"),
    "arg-max": simple("y = ArgMax <axis=1> (x)", y="int64[]"),
    "global pooling": simple("y = GlobalAveragePool(x)"),
}
DLA_RUNS = {
    "convolution": simple("y = Conv <strides=[2,2], pads=[1,1,1,1]> (x, w)", {"w": weights()}),
    "deconvolution": simple("y = ConvTranspose <strides=[2,2]> (x, w)", {"w": weights(4, 4, 2)}),
    "window": simple("y = MaxPool <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]> (x)"),
    "clip": simple("y = Clip(x, a, b)", {"a": np.float32(0), "b": np.float32(6)}),
    "concat": simple("y = Concat <axis=1> (x, x)"),
    "factor": resized("", "x, , k"),
    "transpose": simple("y = Transpose <perm=[0,2,3,1]> (x)"),
    "matrix": simple("y = MatMul(x, k)", {"k": np.ones((16, 3), np.float32)}),
    "softmax": simple("y = Softmax <axis=1> (x)", x="float[1,4,1,1]"),
    "shape arithmetic": simple("n = Shape(x) k = Concat <axis=0> (n) y = Reshape(x, k)"),
}


@pytest.mark.parametrize("model", DLA_REFUSES.values(), ids=DLA_REFUSES.keys())
def test_what_the_dla_leaves_to_the_gpu(model: bytes):
    [finding] = [finding for finding in lint(model, "dla") if finding.rule == "dla-layer"]
    assert "GPU" in finding.message


@pytest.mark.parametrize("model", DLA_RUNS.values(), ids=DLA_RUNS.keys())
def test_what_the_dla_runs(model: bytes):
    assert "dla-layer" not in {rule for rule, _ in found(model, "dla")}
