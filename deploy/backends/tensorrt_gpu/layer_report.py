"""Read how TensorRT compiled a network from its `Layers:` message.

With detailed profiling verbosity the builder logs one verbose message that lists every fused layer with the types that
it reads and writes: the evidence that a convolution runs in INT8. Its format is not documented. TensorRT-RTX 1.7 and
TensorRT 11 list weights as `Constants`; TensorRT 10 lists them as `Weights: {"Type": …}` or among the inputs.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from deploy.bundle.engine_files import LayerSummary
from deploy.table import format_table

HEADING = "Layers:"
"""First word of the message."""

Work = Literal["convolution", "product", "conversion", "other"]


EIGHT_BITS = ("int8", "float8")


@dataclass(frozen=True)
class Layer:
    """One layer of the engine. Types have numpy's names: "int8", "float32", …"""

    name: str
    kind: str
    """TensorRT's layer type: "correlation" (a convolution), "kgen" (generated code), "CaskConvolution", …"""
    onnx: tuple[str, ...]
    """Names of the ONNX nodes behind it."""
    inputs: tuple[str, ...]
    weights: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Product:
    """A convolution or matrix product of the network, and the layer that computes it."""

    onnx: str
    convolution: bool
    layer: Layer | None
    """None where the compiler does not report it (TensorRT 10 hides the content of a `ForeignNode`)."""

    @property
    def precision(self) -> str:
        """The type that it computes in: "int8" if both activations and weights are INT8; "?" if unknown."""
        if self.layer is None:
            return "?"
        activations, weights = self.layer.inputs[:1], self.layer.weights
        if activations == ("int8",) and "int8" in weights:
            return "int8"
        return next((kind for kind in (*weights, *activations) if kind != "int8"), "?")


@dataclass(frozen=True)
class LayerReport:
    """The content of the message; `products` are in the order of the network, if that was given."""

    layers: tuple[Layer, ...]
    products: tuple[Product, ...]
    conversions: tuple[Layer, ...]
    """Layers that only change the type or the memory format."""
    unread: int = 0
    """Lines that look like a layer, but have another form than those of the versions that are known."""


def operators(network: Any) -> dict[str, Work]:
    """What each ONNX node of a parsed `INetworkDefinition` does, by the node's name."""
    found: dict[str, Work] = {}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        work: Work = _WORK.get(layer.type.name, "other")
        for name in onnx_names(layer.metadata):
            # A node may become several layers: the first of them in `_WEIGHT` says what it does.
            found[name] = _WEIGHT[min(_WEIGHT.index(work), _WEIGHT.index(found.get(name, work)))]
    return found


def parse(message: str, works: Mapping[str, Work] | None = None) -> LayerReport | None:
    """Read a `Layers:` message.

    Args:
        message: the message.
        works: what `operators` returned. With it the report is complete and names the network's own nodes; without it,
            convolutions and products are those that the compiler calls so.

    Returns:
        The report; None if the message contains no layer that can be read.
    """
    section = message.partition("\nI/O Tensors:")[0]
    lines = [
        line for line in section.split("\n") if line.startswith("Name: ")
    ]  # a record separator ends no line
    read = [_layer(line) for line in lines]
    found = [layer for layer in read if layer and layer.outputs]
    return report_of(found, works, unread=read.count(None)) if found else None


def report_of(
    found: Sequence[Layer], works: Mapping[str, Work] | None = None, unread: int = 0
) -> LayerReport:
    """What layers do; `works` is as for `parse`."""
    layers, works = tuple(found), works or {}
    products = _products(layers, works) if works else _named_products(layers)
    busy = {product.layer for product in products}
    conversions = tuple(layer for layer in layers if layer not in busy and _converts(layer, works))
    return LayerReport(layers, products, conversions, unread)


def summary(report: LayerReport) -> LayerSummary:
    """Summarize the report for a sidecar. Unknown precision counts as floating point."""
    convolutions = [product for product in report.products if product.convolution]
    return LayerSummary(
        convolutions=len(convolutions),
        int8_convolutions=sum(product.precision == "int8" for product in convolutions),
        conversions=len(report.conversions),
        float_layers=tuple(
            product.onnx for product in report.products if product.precision not in EIGHT_BITS
        ),
        fp8_convolutions=sum(product.precision == "float8" for product in convolutions),
    )


def table(report: LayerReport, most: int = 6) -> str:
    """Format the report as a few lines of text; long lists of names are cut to the first `most`."""
    precisions = sorted({product.precision for product in report.products})
    rows = []
    for title, wanted in (("convolutions", True), ("matrix products", False)):
        found = [product.precision for product in report.products if product.convolution is wanted]
        rows.append((title, str(len(found)), *(str(found.count(kind)) for kind in precisions)))
    rest = len(report.layers) - len({product.layer for product in report.products} - {None})
    blank = [""] * len(precisions)
    rows.append(("conversions only", str(len(report.conversions)), *blank))
    rows.append(("other", str(rest - len(report.conversions)), *blank))
    lines = [format_table(("layers", "all", *precisions), rows)]
    stayed = summary(report).float_layers
    if stayed and len(stayed) < len(report.products):
        lines.append(f"not in {'FP8' if 'float8' in precisions else 'INT8'}: {_some(stayed, most)}")
    if report.conversions:
        names = [layer.onnx[0] if layer.onnx else layer.name for layer in report.conversions]
        lines.append(f"converted at: {_some(names, most)}")
    return "\n".join(lines)


_WEIGHT: tuple[Work, ...] = ("convolution", "product", "other", "conversion")
"""Kinds of work, the most important first."""

_WORK: dict[str, Work] = {
    "CONVOLUTION": "convolution",
    "DECONVOLUTION": "convolution",
    "MATRIX_MULTIPLY": "product",
    "CAST": "conversion",
    "IDENTITY": "conversion",
    "SHUFFLE": "conversion",
    "QUANTIZE": "conversion",
    "DEQUANTIZE": "conversion",
}
"""Work by the name of a `tensorrt.LayerType`; all others do "other" work."""

_TENSORS = r"\[(?P<{}>(?:.*?\}})??)\], "
_LINE = re.compile(
    rf"Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*), Inputs: {_TENSORS.format('inputs')}"
    rf"(?:Constants: {_TENSORS.format('constants')})?Outputs: {_TENSORS.format('outputs')}(?P<rest>.*)"
)
_TENSOR = re.compile(r"\{ Name: (.*?), (?:Location: \w+, )?Dimensions: \[.*?\].*?Datatype: ([^,}]*)")
_WEIGHTS = re.compile(r'Weights: \{"Type": "(\w+)"')
_ONNX = re.compile(r"\[ONNX Layer: (.*?)\](?=\[|\s|\x1e|$)")  # in JSON a record separator stands between them
_GENERATED = re.compile(r"__myl_((?:[A-Z][a-z]+)+)_")
_TYPE = re.compile(r"\b(bfloat16|bf16|half|fp16|float|fp32|fp8|fp4|uint8|int8|int4|int32|int64|bool)\b", re.I)
_TYPES = {
    "float": "float32",
    "fp32": "float32",
    "half": "float16",
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp8": "float8",
    "fp4": "float4",
}

_COMPUTES = {
    True: re.compile(r"conv|correlation", re.I),
    False: re.compile(r"gemm|matmul|matrix|fully", re.I),
}
"""Layer types that compute a convolution (True) or a matrix product."""

_MOVES = {"Cast", "Conc", "Copy", "Move", "Repl", "Resh", "Tran"}
_SCALES = {"Max", "Min", "Mul", "Roun"}
"""Steps in the names of generated kernels: those that only move or cast, and those that scale; together they quantize
or dequantize."""


def _layer(line: str) -> Layer | None:
    match = _LINE.match(line.strip())
    if not match:
        return None
    rest = match["rest"]
    inputs, constants = _TENSOR.findall(match["inputs"]), _TENSOR.findall(match["constants"] or "")
    weights = [type_name(kind) for _, kind in constants]
    if stated := _WEIGHTS.search(rest):
        weights = [type_name(stated[1])]
    elif match["constants"] is None:  # TensorRT 10 lists a generated layer's constants among its inputs
        weights = [type_name(kind) for name, kind in inputs if "const" in name]
        inputs = [(name, kind) for name, kind in inputs if "const" not in name]
    onnx = onnx_names(rest.partition("Metadata: ")[2])
    if not onnx and not match["name"].startswith("__my"):  # before TensorRT 10.3 only the name has them
        onnx = tuple(match["name"].split(" + "))
    return Layer(
        name=match["name"],
        kind=match["kind"],
        onnx=onnx,
        inputs=tuple(type_name(kind) for _, kind in inputs),
        weights=tuple(weights),
        outputs=tuple(type_name(kind) for _, kind in _TENSOR.findall(match["outputs"])),
    )


def onnx_names(metadata: str) -> tuple[str, ...]:
    """Names of the ONNX nodes in the metadata of a layer."""
    return tuple(_ONNX.findall(metadata))


def type_name(text: str) -> str:
    """Extract the type from text such as "Float" or "Thirty-two wide channel vectorized row major Int8 format"."""
    match = _TYPE.search(text)
    name = match[0].lower() if match else text.strip().lower()
    return _TYPES.get(name, name)


def _products(layers: Sequence[Layer], works: Mapping[str, Work]) -> tuple[Product, ...]:
    """Every convolution and product of the network, each with the layer that most likely computes it."""
    behind: dict[str, list[Layer]] = {}
    for layer in layers:
        for name in layer.onnx:
            behind.setdefault(name, []).append(layer)
    found = []
    for name, work in works.items():
        if work in ("convolution", "product"):
            convolution = work == "convolution"
            candidates = behind.get(name, [])
            best = min(candidates, key=lambda layer: _rank(layer, convolution), default=None)
            found.append(Product(name, convolution, best))
    return tuple(found)


def _rank(layer: Layer, convolution: bool) -> int:
    """Rank of a layer as the one that computes it, best first: others pad its input or scale its output."""
    if _COMPUTES[convolution].search(layer.kind):
        return 0
    if _COMPUTES[not convolution].search(layer.kind) or layer.kind == "runtime_fusion":
        return 1
    return 2 if layer.weights else 3


def _named_products(layers: Sequence[Layer]) -> tuple[Product, ...]:
    found = []
    for layer in layers:
        for convolution, pattern in _COMPUTES.items():
            if pattern.search(layer.kind):
                found.append(Product((layer.onnx or (layer.name,))[0], convolution, layer))
                break
    return tuple(found)


def _converts(layer: Layer, works: Mapping[str, Work]) -> bool:
    """Whether the layer, which computes no product, only changes the type or the format."""
    if "reformat" in layer.kind.lower():
        return True
    generated = _GENERATED.match(layer.name)
    if not generated:
        return False
    steps = set(re.findall(r"[A-Z][a-z]+", generated[1]))
    # Kernels before and after a product carry its name too; the other nodes in them decide.
    others = [works[name] for name in layer.onnx if works.get(name, "product") in ("conversion", "other")]
    if not others:
        return steps <= _MOVES - {"Conc"} or steps == {"Repl", "Conc"}
    return steps <= _MOVES | _SCALES and set(others) == {"conversion"}


def _some(names: Sequence[str], most: int) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
