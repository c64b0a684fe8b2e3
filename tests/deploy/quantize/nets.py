"""Small networks to quantize, with the traits of the real ones: uint8 in, residual blocks, pooled features, labels."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from deploy.backends.onnxruntime_cpu import sums_overflow
from deploy.quantize.calibrators import CALIBRATORS
from deploy.quantize.qdq import layers
from deploy.quantize.ranges import collect
from deploy.quantize.simulation import computed_right

HEIGHT, WIDTH, CLASSES = 32, 48, 5


class Net:
    """Builds an ONNX model operator by operator; every method returns the name of the tensor that it makes."""

    def __init__(self, seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> None:
        self.rng = np.random.default_rng(seed)
        self.size = height, width
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"node_{output}", **attributes))
        return output

    def constant(self, name: str, value: object, dtype: type = np.float32) -> str:
        self.constants[name] = np.asarray(value, dtype)
        return name

    def image(self) -> str:
        """The normalized image N×3×H×W, about −2 … 2."""
        real = self.op("Cast", "image", to=TensorProto.FLOAT)
        centered = self.op("Sub", real, self.constant("mean", [120.0, 110.0, 100.0]))
        normal = self.op("Mul", centered, self.constant("scale", [1 / 60, 1 / 55, 1 / 50]))
        return self.op("Transpose", normal, perm=[0, 3, 1, 2])

    def conv(
        self,
        x: str,
        name: str,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        bias: bool = True,
        **attributes: object,
    ) -> str:
        """A convolution that keeps the size (unless it has strides) and the variance."""
        fan_in = inputs * kernel**2
        weight = self.rng.normal(0, (2 / fan_in) ** 0.5, (outputs, inputs, kernel, kernel))
        names = [self.constant(f"network.{name}.weight", weight)]
        if bias:
            names.append(self.constant(f"network.{name}.bias", self.rng.normal(0, 0.1, outputs)))
        attributes.setdefault("pads", [kernel // 2] * 4)
        return self.op("Conv", x, *names, **attributes)

    def model(self, logits: str, opset: int = 20) -> bytes:
        """The file: enlarges the logits N×K×h×w to the image and takes their arg-max."""
        self.nodes.append(helper.make_node("Identity", [logits], ["logits"]))
        for node in self.nodes[:-1]:
            if logits in node.output:
                node.output[:] = ["logits" if name == logits else name for name in node.output]
                self.nodes.pop()
                break
        batch_and_classes = self.op("Shape", "logits", start=0, end=2)
        size = self.op("Concat", batch_and_classes, self.constant("size", self.size, np.int64), axis=0)
        large = self.op("Resize", "logits", "", "", size, mode="linear")
        best = self.op("ArgMax", large, axis=1, keepdims=0)
        self.nodes.append(helper.make_node("Cast", [best], ["labels"], to=TensorProto.UINT8))
        height, width = self.size
        graph = helper.make_graph(
            self.nodes,
            "small",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", height, width, 3])],
            [
                helper.make_tensor_value_info("labels", TensorProto.UINT8, ["N", height, width]),
                helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", "K", "h", "w"]),
            ],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
        onnx.checker.check_model(model)
        return model.SerializeToString()


def residual_net(seed: int = 0, width: int = 16, classes: int = CLASSES) -> bytes:
    """A stem with max pooling, two residual blocks, a pooled branch through constant matrices, a head, logits."""
    net = Net(seed)
    x = net.op("Relu", net.conv(net.image(), "backbone.conv1", 3, width, 7, strides=[2, 2]))
    x = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    y = net.op("Relu", net.conv(x, "backbone.layer1.0.conv1", width, width))
    y = net.conv(y, "backbone.layer1.0.conv2", width, width)
    x = net.op("Relu", net.op("Add", y, x))
    y = net.op("Relu", net.conv(x, "backbone.layer2.0.conv1", width, 2 * width, strides=[2, 2]))
    y = net.conv(y, "backbone.layer2.0.conv2", 2 * width, 2 * width)
    down = net.conv(x, "backbone.layer2.0.downsample.0", width, 2 * width, 1, strides=[2, 2])
    x = net.op("Relu", net.op("Add", y, down))
    cells = net.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    cells = net.op("Relu", net.conv(cells, "pyramid.branches.0.0", 2 * width, width, 1))
    cells = net.conv(cells, "pyramid.taps.0", width, 2 * width, 1, bias=False)
    rows = net.op("MatMul", net.constant("rows", np.kron(np.eye(2), [[1], [1]])), cells)
    pooled = net.op("MatMul", rows, net.constant("columns", np.kron(np.eye(3), [[1, 1]])))
    direct = net.conv(x, "pyramid.direct", 2 * width, 2 * width)
    x = net.op("Relu", net.op("Add", direct, pooled))
    return net.model(net.conv(x, "classifier", 2 * width, classes, 1))


def images(count: int = 8, seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> list[np.ndarray]:
    """Smooth random color images, uint8 1×H×W×3 each, from dark to bright."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((count, 4, 6, 3))
    rows, columns = np.linspace(0, 3, size[0]), np.linspace(0, 5, size[1])
    top, left = rows.astype(int).clip(0, 2), columns.astype(int).clip(0, 4)
    down, right = (rows - top)[:, None, None], (columns - left)[None, :, None]
    upper = coarse[:, top][:, :, left] * (1 - right) + coarse[:, top][:, :, left + 1] * right
    lower = coarse[:, top + 1][:, :, left] * (1 - right) + coarse[:, top + 1][:, :, left + 1] * right
    smooth = upper * (1 - down) + lower * down
    low, high = smooth.min((1, 2, 3), keepdims=True), smooth.max((1, 2, 3), keepdims=True)
    return list((255 * (smooth - low) / (high - low)).round().astype(np.uint8)[:, None])


def calibration(batches: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The images as a calibration set in which every pixel is valid."""
    return [(image, np.ones(image.shape[1:3], bool)) for image in batches]


def ranges_of(model: bytes, batches: list[np.ndarray], margin: float = 1.0) -> dict[str, float]:
    """Ranges that hold for these very images; with a margin, also for the rounded activations of the INT8 model."""
    tensors = list(dict.fromkeys(tensor for layer in layers(model) for tensor in layer.tensors))
    found = collect(model, tensors, calibration(batches))
    return {name: margin * CALIBRATORS["min-max"](histogram) for name, histogram in found.items()}


def run(
    model: bytes, batches: list[np.ndarray], optimize: bool = True, dump: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and logits of all images; `dump` takes a file for the optimized graph."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    if b".scale.half" in model:  # as the gate of the form for TensorRT does
        model = computed_right(model)
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if sums_overflow():  # as the runtime does, on CPUs whose u8 × s8 would overflow
        options.add_session_config_entry("session.x64quantprecision", "1")
    if dump:
        options.optimized_model_filepath = dump
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (name,) = (entry.name for entry in session.get_inputs())
    results = [session.run(["labels", "logits"], {name: image}) for image in batches]
    labels, logits = zip(*results, strict=True)
    return np.concatenate(labels), np.concatenate(logits)


def operators(model: bytes | str) -> list[str]:
    """The kinds of a model's operators, in order."""
    proto = onnx.load(model) if isinstance(model, str) else onnx.load_model_from_string(model)
    return [node.op_type for node in proto.graph.node]


def initializers(model: bytes) -> dict[str, np.ndarray]:
    """The constants of a model."""
    return {t.name: numpy_helper.to_array(t) for t in onnx.load_model_from_string(model).graph.initializer}
