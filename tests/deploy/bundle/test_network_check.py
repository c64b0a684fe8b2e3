"""network_check.py and onnx_reader.py: a network is compared with the manifest before a runtime opens it."""

import resource
import time
from contextlib import suppress

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import deploy
from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.manifest import MODEL
from deploy.bundle.network_check import check_network
from deploy.bundle.onnx_reader import read_declared
from deploy.errors import UserError
from tests.deploy.hostile import constant_network, edit, put
from tests.deploy.tiny import SPECS, WEIGHTS, make_bundle, make_image, make_model


@pytest.fixture
def bundle(tmp_path):
    make_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def refusal(bundle, backend="onnxruntime") -> str:
    start = time.perf_counter()
    with pytest.raises(UserError) as caught:
        deploy.load(bundle, backend, threads=1)(make_image())
    assert time.perf_counter() - start < 10
    message = str(caught.value)
    assert message.isprintable()
    return message


def int64(name: str, *values: int) -> onnx.NodeProto:
    return helper.make_node(
        "Constant", [], [name], value=numpy_helper.from_array(np.array(values, np.int64), name)
    )


def huge(operator: str, *sizes: int) -> list[onnx.NodeProto]:
    operands = ["sizes"] if operator == "ConstantOfShape" else ["given logits", "sizes"]
    return [int64("sizes", *sizes), helper.make_node(operator, operands, ["huge"])]


def loop(rounds: int) -> list[onnx.NodeProto]:
    scalar = [
        helper.make_tensor_value_info(name, TensorProto.INT64, []) for name in ("round", "after", "before")
    ]
    condition = helper.make_tensor_value_info("again", TensorProto.BOOL, [])
    more = helper.make_tensor_value_info("more", TensorProto.BOOL, [])
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["again"], ["more"]),
            helper.make_node("Identity", ["before"], ["after"]),
        ],
        "body",
        [scalar[0], condition, scalar[2]],
        [more, scalar[1]],
    )
    true = helper.make_node("Constant", [], ["true"], value=numpy_helper.from_array(np.array(True), "true"))
    return [
        int64("rounds", rounds),
        true,
        helper.make_node("Loop", ["rounds", "true", "rounds"], ["end"], body=body),
    ]


def test_a_good_network_is_read_as_onnx_reads_it():
    declared = read_declared(make_model(SPECS["sar"], WEIGHTS["sar"]))
    assert declared.inputs["image"].shape == ("N", 2, 32, 48)
    assert {name: value.kind for name, value in declared.outputs.items()} == {"labels": 2, "logits": 1}
    assert {"Conv", "Resize", "ArgMax"} <= declared.operators
    assert (declared.external, declared.largest) == (set(), 0)


def test_constants_among_the_inputs_are_none():
    """As older exporters write them."""
    model = onnx.load_from_string(make_model(SPECS["rgb"], WEIGHTS["rgb"]))
    model.graph.input.append(helper.make_tensor_value_info("mean", TensorProto.FLOAT, [1, 3, 1, 1]))
    assert list(read_declared(model.SerializeToString()).inputs) == ["image"]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "auto"])
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (("input", "height"), 1, "input image is N×32×48×3, the manifest tells N×1×48×3"),
        (("input", "width"), 97, "input image is N×32×48×3, the manifest tells N×32×97×3"),
        (("input", "width"), 16384, "the manifest tells N×32×16384×3"),
        (("outputs", 0, "dtype"), "int64", "output labels is uint8, the manifest tells int64"),
        (("outputs", 1, "shape"), ["N", 3, 8, 6], "output logits is N×3×4×6, the manifest tells N×3×8×6"),
    ],
)
def test_manifests_that_tell_otherwise(bundle, field, value, message, backend):
    edit(bundle, *field, value=value)
    assert message in refusal(bundle, backend)


def test_classes_that_the_network_lacks(bundle):
    edit(bundle, "classes", value=[{"name": name, "color": [0, 0, 0]} for name in "abcd"])
    assert "its logits have 3 maps, but segmentation with 4 classes has 4" in refusal(bundle)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_labels_outside_the_classes_are_an_error_not_an_index(bundle, backend):
    pytest.importorskip(backend)
    put(bundle, MODEL, constant_network(np.full((1, 32, 48), 3, np.uint8)))
    assert "returned label 3, the bundle has 3 classes (0..2)" in refusal(bundle, backend)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (constant_network(labels=np.zeros((1, 32, 48), np.int64)), "output labels is int64, the manifest tells uint8"),
        (constant_network(labels=np.zeros((1, 32), np.uint8)), "output labels is 1×32, the manifest tells"),
        (constant_network(logits=np.zeros((1, 3, 4, 6), np.float16)), "output logits is float16"),
        (constant_network(logits=np.zeros((1, 2, 4, 6), np.float32)), "output logits is 1×2×4×6"),
        (constant_network(shapes={"image": [1, 97, 48, 3]}), "input image is 1×97×48×3"),
        (constant_network(shapes={"labels": ["a", "b", "c"]}, labels=np.zeros((1, 9, 9), np.uint8)), "returned labels"),
        (constant_network(nodes=loop(2**62)), "has the operator Loop, which may never end"),
        (constant_network(nodes=huge("ConstantOfShape", 1 << 16, 1 << 16)), "makes a tensor of 4294967296 values"),
        (constant_network(nodes=huge("Expand", 9, 1 << 40, 1, 1)), "makes a tensor of"),
        (constant_network(nodes=huge("Tile", 1, 1 << 30, 1, 1)), "makes a tensor of"),
        (onnx.ModelProto(ir_version=9).SerializeToString(), "holds no network"),
        (b"", "is empty"),
        (b"\x3a\xff\xff\xff\xff\x0f", "is cut off"),
        (b"text, no network", "it is"),
        (b"\xff" * 100, "not an ONNX file"),
    ],
)  # fmt: skip
def test_hostile_networks(bundle, network, message):
    put(bundle, MODEL, network)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert message in refusal(bundle)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # kB


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "/etc/passwd", "golden.npz/../../x"])
def test_weights_in_files_that_the_manifest_does_not_list(bundle, location):
    model = onnx.load_from_string(make_model(SPECS["rgb"], WEIGHTS["rgb"]))
    (bundle / "weights.bin").write_bytes(bytes(10_000))
    (bundle.parent / "weights.bin").write_bytes(bytes(10_000))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    put(bundle, MODEL, model.SerializeToString())
    assert f"keeps weights in {location}, which is no file of the manifest" in refusal(bundle)


def test_weights_beside_the_model_are_checked_like_the_model(bundle):
    model = onnx.load_from_string(make_model(SPECS["rgb"], WEIGHTS["rgb"]))
    tensor = next(one for one in model.graph.initializer if one.name == "mean")
    (bundle / "weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    expected = deploy.load(bundle, "onnxruntime", threads=1)(make_image()).labels
    edit(bundle, "files", "weights.bin", value={"sha256": "0" * 64, "bytes": 12})
    put(bundle, MODEL, model.SerializeToString())
    found = deploy.load(bundle, "onnxruntime", threads=1)(make_image()).labels
    assert np.array_equal(found, expected)
    (bundle / "weights.bin").write_bytes(bytes(12))
    assert "weights.bin: differs from the exported file" in refusal(bundle)


def test_files_that_are_links_are_refused(bundle, tmp_path):
    (bundle / MODEL).rename(tmp_path / "elsewhere.onnx")
    (bundle / MODEL).symlink_to(tmp_path / "elsewhere.onnx")
    assert "model.onnx: is a symbolic link" in refusal(bundle)


def test_graphs_nested_for_ever():
    def message(number: int, content: bytes) -> bytes:
        size = len(content)
        return bytes([number << 3 | 2, size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14]) + content

    graph = b""
    for _ in range(1000):  # a graph with a node with an attribute with a graph …
        graph = message(1, message(5, message(6, graph)))
    with pytest.raises(ValueError, match="nested deeper than 16"):
        read_declared(message(7, graph))


GOOD = make_model(SPECS["rgb"], WEIGHTS["rgb"])


@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=5),
    st.integers(0, len(GOOD)),
)
def test_any_damage_is_read_or_a_value_error(flips, end):
    damaged = bytearray(GOOD)
    for place, value in flips:
        damaged[place] = value
    for content in (bytes(damaged), bytes(damaged[:end])):
        with suppress(ValueError):
            read_declared(content)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_a_value_error(content):
    with suppress(ValueError):
        read_declared(content)


def test_own_bundles_pass(bundle):
    check_network(bundle / MODEL, read_manifest(bundle))
