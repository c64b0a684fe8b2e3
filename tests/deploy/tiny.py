"""Bundles with networks so small that their answer is known: the class of a patch is decided by its mean color."""

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.bundle.bundle_files import write_bundle
from deploy.bundle.manifest import GOLDEN, MODEL, ClassInfo, InputSpec, Manifest, OutputSpec
from deploy.files.atomic import atomic_write
from deploy.inference.preprocess import to_network

STRIDE = 8
Kind = Literal["rgb", "sar"]

SPECS = {
    "rgb": InputSpec(
        ("R", "G", "B"), 32, 48, "uint8", "NHWC", mean=(120.0, 110.0, 100.0), std=(50.0, 60.0, 70.0)
    ),
    "sar": InputSpec(
        ("VV", "VH"), 32, 48, "float32", "NCHW", mean=(-12.0, -19.0), std=(4.0, 5.0), nodata="nan"
    ),
}
CLASSES = {
    "rgb": (
        ClassInfo("red", (200, 30, 30)),
        ClassInfo("green", (30, 200, 30)),
        ClassInfo("blue", (30, 30, 200)),
    ),
    "sar": (ClassInfo("water", (30, 60, 220)), ClassInfo("land", (150, 120, 60))),
}
WEIGHTS = {"rgb": np.eye(3), "sar": np.array([[-1.0, 0.0], [1.0, 0.0]])}
"""Classes × channels. rgb: the channel that is highest above its mean wins. sar: water where VV is below its mean."""


def make_model(spec: InputSpec, weights: np.ndarray) -> bytes:
    """ONNX: normalize, average patches of 8×8, mix the channels by `weights` K×C, enlarge, arg-max."""
    classes, channels = weights.shape
    kernel = np.broadcast_to(weights[:, :, None, None] / STRIDE**2, (classes, channels, STRIDE, STRIDE))
    constants = {
        "mean": np.array(spec.mean).reshape(1, -1, 1, 1),
        "std": np.array(spec.std).reshape(1, -1, 1, 1),
        "kernel": kernel,
        "scales": np.array([1, 1, STRIDE, STRIDE]),
    }
    nhwc = spec.layout == "NHWC"
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        *([helper.make_node("Transpose", ["real"], ["planes"], perm=[0, 3, 1, 2])] if nhwc else []),
        helper.make_node("Sub", ["planes" if nhwc else "real", "mean"], ["centered"]),
        helper.make_node("Div", ["centered", "std"], ["normal"]),
        helper.make_node("Conv", ["normal", "kernel"], ["logits"], strides=[STRIDE, STRIDE]),
        helper.make_node("Resize", ["logits", "", "scales"], ["large"], mode="linear"),
        helper.make_node("ArgMax", ["large"], ["best"], axis=1, keepdims=0),
        helper.make_node("Cast", ["best"], ["labels"], to=TensorProto.UINT8),
    ]
    size, small = [spec.height, spec.width], [spec.height // STRIDE, spec.width // STRIDE]
    shape = ["N", *size, channels] if nhwc else ["N", channels, *size]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8 if nhwc else TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info("labels", TensorProto.UINT8, ["N", *size]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes, *small]),
        ],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def make_manifest(kind: Kind = "rgb", resize: Literal["stretch", "tile"] = "stretch") -> Manifest:
    """A manifest without files, as `write_bundle` takes it."""
    spec = SPECS[kind]
    return Manifest(
        name=f"tiny-{kind}",
        classes=CLASSES[kind],
        input=InputSpec(
            **{field: getattr(spec, field) for field in spec.__struct_fields__} | {"resize": resize}
        ),
        outputs=(
            OutputSpec("labels", "uint8", ("N", 32, 48), "label id"),
            OutputSpec("logits", "float32", ("N", len(CLASSES[kind]), 4, 6), "scores before the softmax"),
        ),
        metrics={"dataset": "made up", "miou": 0.5},
        provenance={"command": "tests"},
    )


def make_bundle(folder: Path, kind: Kind = "rgb", resize: Literal["stretch", "tile"] = "stretch") -> Manifest:
    """Write a whole bundle of 32×48 pixels to `folder`: uint8 RGB with 3 classes, or float32 VV and VH with 2."""
    manifest = make_manifest(kind, resize)
    model = make_model(manifest.input, WEIGHTS[kind])
    inputs = to_network(np.stack([make_image(kind, seed) for seed in range(2)]), manifest.input)
    golden = folder.with_name(f"{folder.name}-golden.npz")
    with atomic_write(golden) as file:
        np.savez(file, inputs=inputs, **OrtEngine(model, threads=1).run(inputs))
    try:
        return write_bundle(folder, manifest, {MODEL: model, GOLDEN: golden}, {MODEL: "fp32"})
    finally:
        golden.unlink()


def make_image(kind: Kind = "rgb", seed: int = 0, size: tuple[int, int] = (32, 48)) -> np.ndarray:
    """A random image H×W×C of the dtype and range that the bundle of this kind reads, without NaN."""
    rng = np.random.default_rng(seed)
    if kind == "rgb":
        return rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    return rng.normal((-12, -19), (4, 5), (*size, 2)).astype(np.float32)
