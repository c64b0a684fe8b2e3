"""sandbox.py: a network that passes every check of what it declares, but takes memory or time, ends only a child."""

import resource
import time

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from deploy import sandbox
from deploy.bundle.manifest import MODEL
from deploy.cli import main
from deploy.errors import GateFailed, UserError
from tests.deploy.hostile import constant_network, edit, put
from tests.deploy.tiny import make_bundle


@pytest.fixture
def bundle(tmp_path):
    make_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def sandboxed(bundle, *options: str) -> int:
    return main(["verify", str(bundle), "--sandbox", "--backend", "onnxruntime", *options])


def two_images(nodes: list[onnx.NodeProto] | None = None) -> bytes:
    labels, logits = np.zeros((2, 32, 48), np.uint8), np.ones((2, 3, 4, 6), np.float32)
    return constant_network(labels, logits, nodes, {"image": [2, 32, 48, 3]})


def large(factor: int, products: int = 0) -> bytes:
    """A network that makes 1024·`factor`² floats, of a shape that it computes, and multiplies them with themselves."""

    def constant(name: str, *values: int):
        tensor = numpy_helper.from_array(np.array(values, np.int64), name)
        return helper.make_node("Constant", [], [name], value=tensor)

    one = numpy_helper.from_array(np.ones(1, np.float32), "one")
    nodes = [
        constant("base", 1, 32, 32),
        constant("factor", 1, factor, factor),
        helper.make_node("Mul", ["base", "factor"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["value 0"], value=one),
        *(
            helper.make_node("MatMul", [f"value {i}", f"value {i}"], [f"value {i + 1}"])
            for i in range(products)
        ),
        helper.make_node("ReduceMax", [f"value {products}"], ["largest"], keepdims=0),
        helper.make_node("Mul", ["given logits", "largest"], ["used"]),
    ]
    model = onnx.load_from_string(two_images(nodes))
    last = next(node for node in model.graph.node if list(node.output) == ["logits"])
    last.input[0] = "used"
    model.graph.node.remove(last)
    model.graph.node.append(last)
    return model.SerializeToString()


def test_a_good_bundle_passes(bundle, capsys):
    assert sandboxed(bundle) == 0
    files, golden = capsys.readouterr().out.splitlines()
    assert files.endswith("files match their checksums")
    assert golden.startswith("onnxruntime fp32: 2 golden inputs, labels agree on 100.000 %")


def test_what_failed_is_said_not_what_was_printed_last(monkeypatch):
    child = "print('openvino bf16: far off, FAILED'); print('openvino fp32: passed'); sys.exit(1)"
    monkeypatch.setattr(sandbox, "_CHILD", child)
    with pytest.raises(GateFailed, match=r"^openvino bf16: far off, FAILED$"):
        sandbox.run_limited(("verify", "bundle"), "bundle", sandbox.Limits())


def test_a_network_that_takes_all_memory(bundle):
    put(bundle, MODEL, large(2048))  # 16 GiB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        GateFailed, match=r"bundle: needs more than 2000 MB in the sandbox; do not use this bundle$"
    ):
        sandboxed(bundle, "--sandbox-mb", "2000")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # kB


def test_a_network_that_takes_all_time(bundle):
    put(bundle, MODEL, large(128, products=40))
    start = time.monotonic()
    with pytest.raises(GateFailed, match=r"bundle: not finished after 2 s in the sandbox"):
        sandboxed(bundle, "--sandbox-seconds", "2")
    assert time.monotonic() - start < 20


def test_what_verify_finds_is_found_there_too(bundle, capsys):
    put(bundle, MODEL, two_images())
    with pytest.raises(GateFailed, match=r"^onnxruntime fp32: 2 golden inputs, labels agree on .* FAILED$"):
        sandboxed(bundle)
    edit(bundle, "input", "height", value=10**18)
    with pytest.raises(
        UserError, match=r"manifest\.json: Expected `int` <= 16384 - at `\$\.input\.height`"
    ) as caught:
        sandboxed(bundle)
    assert caught.value.exit_code == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("option", ["mb", "seconds"])
def test_limits_that_cannot_be(bundle, option):
    with pytest.raises(UserError, match="give at least 1"):
        sandboxed(bundle, f"--sandbox-{option}", "0")
