"""Predict how much of a network a compiler will run in INT8."""

import msgspec

from deploy.lint.graph import Graph, Node
from deploy.lint.pairs import CLAMPS, MOVES, activations, is_weight, origin, runs_in_int8


class Int8Coverage(msgspec.Struct, frozen=True):
    """How much of one file one target is predicted to run in INT8."""

    convolutions: int
    int8_convolutions: int
    macs: int
    """Multiply-accumulates of all convolutions at batch 1; 0 where shapes are unknown."""
    int8_share: float
    """The share of the multiply-accumulates in INT8 convolutions, 0…1."""
    pairs: int
    """Activations with a Q and a DQ; weights are not counted."""
    conversions: int
    """Q and DQ nodes that cannot fuse with an INT8 operator next to them."""

    def __str__(self) -> str:
        return (
            f"{self.int8_convolutions} of {self.convolutions} convolutions in INT8 "
            f"({self.int8_share:.1%} of {self.macs / 1e9:.3g} GMAC), {self.pairs} Q/DQ pairs, "
            f"{self.conversions} conversions between float and INT8"
        )


def predict_int8_coverage(graph: Graph, target: str) -> Int8Coverage:
    """Predict which convolutions the target will run in INT8, by the measured rules of `pairs`."""
    convs = list(graph.of("Conv"))
    int8 = [conv for conv in convs if runs_in_int8(graph, conv, target)]
    return Int8Coverage(
        convolutions=len(convs),
        int8_convolutions=len(int8),
        macs=graph.total_macs,
        int8_share=sum(map(graph.share, int8)),
        pairs=sum(1 for _ in activations(graph)),
        conversions=_conversions(graph, target),
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
