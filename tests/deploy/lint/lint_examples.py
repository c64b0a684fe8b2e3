"""The smallest model that breaks each rule of the linter, and the nearest one that does not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper, parser

from deploy.lint.finding import Level, Target

SIGNED = np.int8(0)
Constants = Mapping[str, np.ndarray | np.generic]


def make(text: str, constants: Constants | None = None, opset: int = 20, ir_version: int = 10) -> bytes:
    """A model from ONNX's text form of a graph (`g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }`) and constants."""
    model = parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["" : {opset}, "my" : 1]>\n{text}')
    for name, value in (constants or {}).items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return model.SerializeToString()


def changed(model: bytes, change: Callable[[onnx.ModelProto], object]) -> bytes:
    """The model after an edit that the text form cannot express."""
    proto = onnx.load_model_from_string(model)
    change(proto)
    return proto.SerializeToString()


def simple(
    nodes: str, constants: Constants | None = None, x: str = "float[1,4,16,16]", y: str = "float[]", **how
) -> bytes:
    """A model with one input x and one output y."""
    return make(f"g ({x} x) => ({y} y) {{ {nodes} }}", constants, **how)


def weights(out: int = 8, channels: int = 4, kernel: int = 3, dtype: type = np.float32) -> np.ndarray:
    """Weights without a zero, out × channels × kernel × kernel."""
    values = np.random.default_rng(out).integers(1, 100, (out, channels, kernel, kernel))
    return values.astype(dtype)


def quantized(
    between: str = "",
    after: str = "",
    zero: np.generic = SIGNED,
    output: bool = True,
    **edit: np.ndarray | np.generic,
) -> bytes:
    """x → Q → DQ d → `between` m → Conv c → `after` t → Q → DQ → y, with int8 weights per channel and a float bias.

    `between` makes m from d, `after` makes t from c; without `output` the last Q and DQ are left out; `edit` changes
    constants.
    """
    nodes = (
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) wd = DequantizeLinear <axis=0> (w, ws, wz)"
    )
    nodes += f" {between} c = Conv <pads=[1,1,1,1]> ({'m' if between else 'd'}, wd, b) {after} "
    last = "t" if after else "c"
    pair = f"yq = QuantizeLinear({last}, ys, z) y = DequantizeLinear(yq, ys, z)"
    constants = {
        "s": np.float32(0.05),
        "z": zero,
        "w": weights(dtype=np.int8),
        "ws": np.full(8, 0.01, np.float32),
        "wz": np.zeros(8, np.int8),
        "b": np.ones(8, np.float32),
        "ys": np.float32(0.3),
    }
    return simple(nodes + (pair if output else f"y = Sigmoid({last})"), constants | edit)


def residual(skip: str, pair_on_main: bool = True, zero: np.generic = SIGNED) -> bytes:
    """relu a → Q → DQ d → Conv → (Q → DQ) → Add with `skip`, "a" or "d" → Q → DQ → y."""
    main = "cq = QuantizeLinear(c, ys, z) e = DequantizeLinear(cq, ys, z)" if pair_on_main else ""
    nodes = f"""
        a = Relu(x) q = QuantizeLinear(a, s, z) d = DequantizeLinear(q, s, z)
        wd = DequantizeLinear <axis=0> (w, ws, wz) c = Conv <pads=[1,1,1,1]> (d, wd) {main}
        t = Add({"e" if pair_on_main else "c"}, {skip})
        yq = QuantizeLinear(t, ys, z) y = DequantizeLinear(yq, ys, z)
    """
    scales = {"s": np.float32(0.05), "ys": np.float32(0.3), "ws": np.full(4, 0.01, np.float32)}
    zeros = {"z": zero, "wz": np.zeros(4, np.int8)}
    return simple(nodes, scales | zeros | {"w": weights(4, dtype=np.int8)})


def beside(kind: str, dtype: type) -> bytes:
    """x → Q → DQ → Conv with INT8 weights → Conv with weights of this type → y."""
    nodes = """
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) wd = DequantizeLinear <axis=0> (w, ws, wz)
        c = Conv(d, wd) y = Conv(c, v)
    """
    scales = {"s": dtype(0.05), "ws": np.full(8, 0.01, dtype)}
    zeros = {"z": SIGNED, "wz": np.zeros(8, np.int8)}
    kernels = {"w": weights(dtype=np.int8), "v": weights(8, 8, dtype=dtype)}
    return simple(nodes, scales | zeros | kernels, x=f"{kind}[1,4,16,16]", y=f"{kind}[]")


def transposed(axis: int) -> bytes:
    """A ConvTranspose with INT8 weights 4 × 8 × 3 × 3, scaled along an axis."""
    nodes = f"wd = DequantizeLinear <axis={axis}> (w, ws) y = ConvTranspose(x, wd)"
    return simple(nodes, {"w": weights(4, 8, dtype=np.int8), "ws": np.full((4, 8)[axis], 0.01, np.float32)})


def external(model: bytes, shape: tuple[int, ...] = (8, 4, 3, 3)) -> bytes:
    """The model with the data of its first constant in the file `gone.bin`."""

    def change(proto: onnx.ModelProto) -> None:
        tensor = proto.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.dims[:] = shape
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="gone.bin")

    return changed(model, change)


RELU = simple("y = Relu(x)")
BATCHED = simple("y = Relu(x)", x="float[N,4,16,16]")
CONV = simple("y = Conv(x, w)", {"w": weights()})
QUANTIZED = quantized(output=False)
"""What every target but the DLA runs well: int8 for TensorRT …"""
UNSIGNED = quantized(zero=np.uint8(128))
"""… and uint8 for CPUs."""


def dead_channels() -> bytes:
    """Five of eight output channels are zero."""
    dead = weights()
    dead[:5] = 0
    return simple("y = Conv(x, w)", {"w": dead})


def pair(**constants: np.generic | np.ndarray) -> bytes:
    """x → Q → DQ → Sigmoid → y."""
    nodes = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Sigmoid(d)"
    return simple(nodes, {"s": np.float32(0.1), "z": np.int8(0)} | constants)


def int32_bias() -> bytes:
    """The bias quantized to int32, as onnxruntime.quantization does by default."""
    nodes = "bd = DequantizeLinear <axis=0> (bq, bs) y = Conv(x, w, bd)"
    constants = {"w": weights(), "bq": np.ones(8, np.int32), "bs": np.full(8, 0.01, np.float32)}
    return simple(nodes, constants)


def times(constant: np.generic) -> bytes:
    """x times a constant."""
    return simple("y = Mul(x, k)", {"k": constant})


def typed(kind: str, dtype: type) -> bytes:
    """A multiplication by 2 in this type."""
    return simple("y = Mul(x, k)", {"k": dtype(2)}, x=f"{kind}[1,4,16,16]", y=f"{kind}[]")


def half_quantized() -> bytes:
    """INT8 data and float weights."""
    nodes = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Conv(d, w)"
    return simple(nodes, {"s": np.float32(0.1), "z": np.int8(0), "w": weights()})


def pooled(size: int) -> bytes:
    """Average pooling in bins of 4×4."""
    nodes = "y = AveragePool <kernel_shape=[4,4], strides=[4,4]> (x)"
    return simple(nodes, x=f"float[1,4,{size},{size}]")


def wide(channels: int) -> bytes:
    """A convolution with this many output channels, 16 input channels."""
    return simple("y = Conv(x, w)", {"w": weights(channels, 16)}, x="float[1,16,16,16]")


def resized(settings: str, inputs: str = "x, r, k") -> bytes:
    """Enlarged twice."""
    constants = {"k": np.array([1, 1, 2, 2], np.float32), "r": np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32)}
    return simple(f'y = Resize <mode="linear" {settings}> ({inputs})', constants)


@dataclass(frozen=True)
class Example:
    """A model that breaks `rule` for `target`, and one that does not."""

    rule: str
    level: Level
    target: Target
    bad: bytes
    good: bytes


HALF = simple("y = Conv(x, w)", {"w": weights(dtype=np.float16)}, x="float16[1,4,16,16]", y="float16[]")
DOUBLE = simple("y = Conv(x, w)", {"w": weights(dtype=np.float64)}, x="double[1,4,16,16]", y="double[]")
SYMMETRIC = ', coordinate_transformation_mode="half_pixel_symmetric"'
HALVES = "y = MaxPool <kernel_shape=[2,2], strides=[2,2]> (x)"
IMAGE = "uint8[1,16,16,3]"
CAST_PERMUTE = "c = Cast <to=1> (x) y = Transpose <perm=[0,3,1,2]> (c)"
PERMUTE_CAST = "p = Transpose <perm=[0,3,1,2]> (x) y = Cast <to=1> (p)"
FLAT_TO_UINT8 = "f = Flatten(x) y = Cast <to=2> (f)"
TO_UINT8_FLAT = "c = Cast <to=2> (x) y = Flatten(c)"
NO_OUTPUTS = changed(RELU, lambda proto: proto.graph.ClearField("output"))
LONG = simple("y = Add(x, k)", {"k": np.int64(2**40)}, x="int64[1,4]", y="int64[]")
TO_THE_END = simple("y = Slice(x, k, e)", {"k": np.array([0]), "e": np.array([2**62])})
RELU_MIDDLE, RELU_LOW = (quantized(after="t = Relu(c)", zero=zero) for zero in (np.uint8(128), np.uint8(0)))
EMPTY_OPSET = changed(RELU, lambda proto: proto.ClearField("opset_import"))

RTX, ORT, OV, TRT10, TRT11, DLA = (  # short names, so that an example is a line
    "tensorrt-rtx",
    "onnxruntime",
    "openvino",
    "tensorrt-10",
    "tensorrt-11",
    "dla",
)
EXAMPLES = (
    # the file as a whole
    Example("no-outputs", "error", RTX, NO_OUTPUTS, RELU),
    Example("no-outputs", "warning", ORT, NO_OUTPUTS, RELU),
    Example("missing-tensor", "error", RTX, simple("y = Add(x, gone)"), simple("y = Add(x, x)")),
    Example("missing-tensor", "error", ORT, simple("z = Relu(x)"), RELU),
    Example("opset-version", "error", ORT, EMPTY_OPSET, RELU),
    Example("opset-version", "error", OV, EMPTY_OPSET, RELU),
    Example("opset-version", "warning", RTX, EMPTY_OPSET, RELU),
    Example("opset-version", "warning", TRT10, simple("y = Relu(x)", opset=21), RELU),
    Example("opset-version", "warning", TRT11, simple("y = Relu(x)", opset=26), RELU),
    Example("ir-version", "warning", ORT, simple("y = Relu(x)", ir_version=11), RELU),
    Example("external-data", "error", RTX, external(CONV), CONV),
    Example("external-data", "error", ORT, external(CONV), CONV),
    Example("huge-model", "warning", TRT10, external(CONV, (2**15, 2**14, 1, 1)), CONV),
    # sizes
    Example("dynamic-size", "error", RTX, simple("y = Relu(x)", x="float[N,4,H,16]"), RELU),
    Example("dynamic-size", "error", ORT, simple("y = Relu(x)", x="float[]"), BATCHED),
    Example("dynamic-batch", "note", DLA, BATCHED, RELU),
    Example("odd-size", "note", TRT11, simple(HALVES, x="float[1,4,15,16]"), simple(HALVES)),
    Example("uneven-bins", "warning", TRT11, pooled(18), pooled(16)),
    Example("odd-channels", "note", TRT11, wide(20), wide(24)),
    Example("odd-channels", "note", ORT, wide(24), wide(32)),
    Example("zero-channels", "note", ORT, dead_channels(), CONV),
    # operators and types
    Example("unknown-operator", "error", RTX, simple("y = my.Novel(x)"), RELU),
    Example("unknown-operator", "error", ORT, simple("y = my.Relu(x)"), RELU),
    Example("unknown-operator", "error", OV, simple("y = Novel(x)"), RELU),
    Example("unsupported-operator", "error", RTX, simple("y = Det(x)"), RELU),
    Example("unsupported-operator", "error", OV, simple("y = Det(x)"), RELU),
    Example("recent-operator", "warning", TRT10, simple("y = HannWindow(x)", x="int64"), RELU),
    Example("unsupported-setting", "error", RTX, resized(", antialias=1"), resized("")),
    Example("unsupported-setting", "error", OV, resized(SYMMETRIC), resized("")),
    Example("uint8-tensor", "error", RTX, simple(PERMUTE_CAST, x=IMAGE), simple(CAST_PERMUTE, x=IMAGE)),
    Example(
        "uint8-tensor", "error", RTX, simple(TO_UINT8_FLAT, y="uint8[]"), simple(FLAT_TO_UINT8, y="uint8[]")
    ),
    Example("unsupported-type", "error", RTX, typed("uint32", np.uint32), typed("int32", np.int32)),
    Example("float64-type", "warning", RTX, DOUBLE, CONV),
    Example("float64-type", "error", ORT, DOUBLE, CONV),
    Example("float64-type", "warning", OV, DOUBLE, CONV),
    Example("float16-on-cpu", "warning", ORT, HALF, CONV),
    Example("not-finite", "warning", RTX, times(np.float32(np.nan)), times(np.float32(-np.inf))),
    Example("fp16-overflow", "note", RTX, times(np.float32(70000)), times(np.float32(65504))),
    Example("int64-range", "note", RTX, LONG, TO_THE_END),
    # Q and DQ
    Example("zero-point", "error", RTX, UNSIGNED, QUANTIZED),
    Example("zero-point", "error", RTX, quantized(wz=np.arange(8, dtype=np.int8)), QUANTIZED),
    Example(
        "uint8-weights",
        "error",
        RTX,
        quantized(w=weights(dtype=np.uint8), wz=np.zeros(8, np.uint8)),
        QUANTIZED,
    ),
    Example("uint8-range", "warning", RTX, quantized(zero=np.uint8(0)), QUANTIZED),
    Example("int32-bias", "error", RTX, int32_bias(), CONV),
    Example("bad-scale", "error", RTX, quantized(s=np.float32(0)), QUANTIZED),
    Example("bad-scale", "error", RTX, quantized(ws=np.array([1, -1] * 4, np.float32)), QUANTIZED),
    Example("bad-scale", "warning", RTX, quantized(s=np.float32(np.inf)), QUANTIZED),
    Example("bad-scale", "warning", ORT, quantized(s=np.float32(np.nan)), QUANTIZED),
    Example("absurd-range", "warning", OV, quantized(ys=np.float32(1e4)), QUANTIZED),
    Example("absurd-range", "warning", RTX, quantized(s=np.float32(1e-9)), QUANTIZED),
    Example("int8-activations", "warning", ORT, QUANTIZED, UNSIGNED),
    Example("clamp-in-float", "warning", ORT, RELU_MIDDLE, RELU_LOW),
    Example("shared-int8", "warning", ORT, residual("d"), residual("d", zero=np.uint8(128))),
    Example("unquantized-output", "warning", ORT, quantized(output=False, zero=np.uint8(128)), UNSIGNED),
    Example("half-quantized", "warning", RTX, half_quantized(), QUANTIZED),
    Example("float-residual", "warning", RTX, residual("a"), residual("d")),
    Example(
        "float-residual",
        "warning",
        ORT,
        residual("d", False, np.uint8(128)),
        residual("d", True, np.uint8(128)),
    ),
    Example("unfused-residual", "warning", RTX, residual("d"), residual("d", False)),
    Example("float32-product", "warning", RTX, beside("float", np.float32), beside("float16", np.float16)),
    Example("unfused-pair", "warning", RTX, pair(), QUANTIZED),
    Example("scale-axis", "warning", RTX, transposed(0), transposed(1)),
    Example("per-tensor-weights", "note", RTX, quantized(ws=np.float32(0.01), wz=np.int8(0)), QUANTIZED),
    # the accelerator of a Jetson
    Example("dla-layer", "warning", DLA, simple("y = Sin(x)"), RELU),
    Example("dla-explicit-int8", "warning", DLA, QUANTIZED, HALF),
    Example("dla-float32", "warning", DLA, CONV, HALF),
)
