"""A bundle with a generated network of random weights, for benchmarks of speed."""

from io import BytesIO
from pathlib import Path

import numpy as np

from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.bundle.bundle_files import write_bundle
from deploy.bundle.manifest import GOLDEN, MODEL, ClassInfo, InputSpec, Manifest, OutputSpec

STRIDE, CLASSES = 8, 5


def make_bundle(folder: Path, tile: int, channels: int = 48) -> Path:
    """Write a bundle for uint8 RGB images, with 5 classes at stride 8. Needs onnx.

    Args:
        folder: folder to write.
        tile: height and width of the network's input in pixels.
        channels: width of the network.

    Returns:
        `folder`.
    """
    spec = InputSpec(("R", "G", "B"), tile, tile, "uint8", "NHWC", (120.0,) * 3, (60.0,) * 3, resize="tile")
    model = _model(spec, channels)
    inputs = np.random.default_rng(1).integers(0, 256, (1, tile, tile, 3), np.uint8)
    golden = BytesIO()
    outputs = OrtEngine(model, threads=1).run(inputs)
    np.savez(golden, inputs=inputs, labels=outputs["labels"], logits=outputs["logits"])
    small = tile // STRIDE
    manifest = Manifest(
        name="made-up",
        classes=tuple(ClassInfo(f"class {i}", (50 * i, 255 - 50 * i, 128)) for i in range(CLASSES)),
        input=spec,
        outputs=(
            OutputSpec("labels", "uint8", ("N", tile, tile), "label id"),
            OutputSpec("logits", "float32", ("N", CLASSES, small, small), "scores before the softmax"),
        ),
    )
    write_bundle(folder, manifest, {MODEL: model, GOLDEN: golden.getvalue()}, {MODEL: "fp32"})
    return folder


def _model(spec: InputSpec, width: int) -> bytes:
    """An ONNX file with normalization, `width` channels in the middle layers, upsampling and argmax."""
    from onnx import TensorProto, helper, numpy_helper  # optional dependency

    # Output channels, kernel size, stride.
    layers = ((width // 2, 3, 2), (width, 3, 2), (width, 3, 2), (width, 3, 1), (CLASSES, 1, 1))
    rng, nodes, values, channels, last = np.random.default_rng(0), [], [], 3, "normal"
    for i, (count, side, stride) in enumerate(layers):
        weights = rng.normal(0, (2 / (channels * side**2)) ** 0.5, (count, channels, side, side))
        values.append(numpy_helper.from_array(weights.astype(np.float32), f"weights{i}"))
        final = i == len(layers) - 1
        result = "logits" if final else f"convolved{i}"
        pads = [side // 2] * 4
        nodes.append(
            helper.make_node("Conv", [last, f"weights{i}"], [result], strides=[stride] * 2, pads=pads)
        )
        if not final:
            nodes.append(helper.make_node("Relu", [result], [f"positive{i}"]))
        channels, last = count, f"positive{i}"
    constants = {
        "mean": np.array(spec.mean).reshape(1, -1, 1, 1),
        "std": np.array(spec.std).reshape(1, -1, 1, 1),
        "scales": np.array([1, 1, STRIDE, STRIDE]),
    }
    values += [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    size, small = [spec.height, spec.width], [spec.height // STRIDE, spec.width // STRIDE]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["real"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Sub", ["planes", "mean"], ["centered"]),
            helper.make_node("Div", ["centered", "std"], ["normal"]),
            *nodes,
            helper.make_node("Resize", ["logits", "", "scales"], ["large"], mode="linear"),
            helper.make_node("ArgMax", ["large"], ["best"], axis=1, keepdims=0),
            helper.make_node("Cast", ["best"], ["labels"], to=TensorProto.UINT8),
        ],
        "made-up",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", *size, 3])],
        [
            helper.make_tensor_value_info("labels", TensorProto.UINT8, ["N", *size]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES, *small]),
        ],
        values,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString()
