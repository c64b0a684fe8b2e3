"""Predict how much of a network a compiler will run in INT8."""

from collections import Counter

import msgspec

from deploy.lint.graph import PRODUCTS, Graph, Node
from deploy.lint.pairs import CLAMPS, MOVES, activations, is_weight, origin, quantized_type, runs_in_int8
from deploy.lint.reading import read_graph

ENOUGH = 0.5
"""Share of the work in INT8 below which there is a warning."""


class Int8Coverage(msgspec.Struct, frozen=True):
    """How much of one file one target is predicted to run in INT8."""

    convolutions: int
    int8_convolutions: int
    macs: int
    """Multiply-accumulates of all convolutions and matrix products at batch 1; 0 where shapes are unknown."""
    int8_share: float
    """The share of the multiply-accumulates that are in INT8, 0…1."""
    pairs: int
    """Activations with a Q and a DQ; weights are not counted."""
    conversions: int
    """Q and DQ nodes that cannot fuse with an INT8 operator next to them."""
    matrices: int = 0
    """Matrix products, of weights or of two activations."""
    int8_matrices: int = 0
    format: str = "INT8"
    """"FP8" in a file with 8-bit floats, which are then counted in place of INT8."""

    def __str__(self) -> str:
        matrices = f" and {self.int8_matrices} of {self.matrices} matrix products" if self.matrices else ""
        return (
            f"{self.int8_convolutions} of {self.convolutions} convolutions{matrices} in {self.format} "
            f"({self.int8_share:.1%} of {self.macs / 1e9:.3g} GMAC), {self.pairs} Q/DQ pairs, "
            f"{self.conversions} conversions between float and {self.format}"
        )


def predict_int8_coverage(graph: Graph, target: str) -> Int8Coverage:
    """Predict which products the target will run in INT8, by the measured rules of `pairs`."""
    products = list(graph.of(*PRODUCTS))
    int8 = [product for product in products if runs_in_int8(graph, product, target)]
    kinds = {quantized_type(graph, node) for node in activations(graph)}
    counts = Counter("conv" if one.op.startswith("Conv") else "matrix" for one in products)
    int8_counts = Counter("conv" if one.op.startswith("Conv") else "matrix" for one in int8)
    return Int8Coverage(
        convolutions=counts["conv"],
        int8_convolutions=int8_counts["conv"],
        macs=graph.total_macs,
        int8_share=sum(map(graph.share, int8)),
        pairs=sum(1 for _ in activations(graph)),
        conversions=_conversions(graph, target),
        matrices=counts["matrix"],
        int8_matrices=int8_counts["matrix"],
        format="FP8" if any(kind.startswith("float8") for kind in kinds) else "INT8",
    )


def little_int8(model: bytes, target: str) -> str | None:
    """A warning where less than half of a quantized network's work is in INT8, so that little speed can be gained."""
    coverage = predict_int8_coverage(read_graph(model), target)
    if coverage.int8_share >= ENOUGH or not coverage.macs:
        return None
    share = f"only {coverage.int8_share:.0%} of the network's multiply-accumulates are in {coverage.format} on {target}"
    return (
        f"{share} (products of two activations, as in attention, and layers left in float are not); compare its speed"
        " with --precision fp16"
    )


def _conversions(graph: Graph, target: str) -> int:
    makers = [origin(graph, quantize.inputs[0]) for quantize in activations(graph)]
    to_int8 = sum(1 for maker in makers if maker is None or not runs_in_int8(graph, maker, target))
    dequantize = [node for node in graph.of("DequantizeLinear") if not is_weight(graph, node)]
    return to_int8 + sum(1 for node in dequantize if _read_in_float(graph, node, target))


def _read_in_float(graph: Graph, node: Node, target: str) -> bool:
    """Whether something that runs in float reads the node's output, perhaps after operators that move or clamp it."""
    return graph.leaves(node.outputs[0]) or any(
        _read_in_float(graph, reader, target)
        if reader.op in MOVES | CLAMPS
        else reader.op != "QuantizeLinear" and not runs_in_int8(graph, reader, target)
        for reader in graph.readers(node.outputs[0])
    )
