"""Write means and enlargements as a DLA has them: pools of at most 8×8, and whole factors that are constants."""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from deploy.quantize.graph import constants, readers

LARGEST_WINDOW = 8
Shapes = Mapping[str, list[int]]


def as_dla_layers(inferred: onnx.GraphProto, graph: onnx.GraphProto) -> None:
    """Rewrite the layers of `graph`, whose shapes are in `inferred`; what cannot be written otherwise stays."""
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}
    nodes = []
    for node in graph.node:
        if node.op_type == "ReduceMean" and (pools := _pools(graph, node, shapes)):
            nodes += pools
            continue
        if node.op_type == "Resize":
            _enlarge_by_factors(graph, node, shapes)
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    _spread_single_cells(graph, shapes)


def _pools(graph: onnx.GraphProto, node: onnx.NodeProto, shapes: Shapes) -> list[onnx.NodeProto]:
    """A mean over whole maps as averages of averages over equal windows; none where the sides do not allow it."""
    source, result = shapes.get(node.input[0], []), shapes.get(node.output[0], [])
    if len(source) != 4 or result != [*source[:2], 1, 1] or not all(source):
        return []
    rows, columns = _windows(source[2]), _windows(source[3])
    if not rows or not columns:
        return []
    turns = max(len(rows), len(columns))
    pads = [sides + [1] * (turns - len(sides)) for sides in (rows, columns)]
    names = [node.input[0], *(f"{node.output[0]}.{turn}" for turn in range(1, turns)), node.output[0]]
    return [
        helper.make_node(
            "AveragePool",
            [names[turn]],
            [names[turn + 1]],
            name=f"{node.name}.{turn}",
            kernel_shape=window,
            strides=window,
        )
        for turn, window in enumerate([list(pair) for pair in zip(*pads, strict=True)])
    ]


def _windows(side: int) -> list[int]:
    """Factors of a side, each at most 8; none if it has a larger prime factor."""
    found = []
    while side > 1:
        factor = next((one for one in range(LARGEST_WINDOW, 1, -1) if side % one == 0), None)
        if factor is None:
            return []
        found.append(factor)
        side //= factor
    return found or [1]


def _enlarge_by_factors(graph: onnx.GraphProto, node: onnx.NodeProto, shapes: Shapes) -> None:
    """Give an enlargement constant factors instead of a size that the graph computes from shapes."""
    old, new = shapes.get(node.input[0], []), shapes.get(node.output[0], [])
    if len(old) != 4 or len(new) != 4 or not all(old) or any(b % a for a, b in zip(old, new, strict=True)):
        return
    factors = [b // a for a, b in zip(old, new, strict=True)]
    name = f"factors.{'.'.join(map(str, factors))}"
    if name not in constants(graph):
        graph.initializer.append(numpy_helper.from_array(np.array(factors, np.float32), name))
    data = node.input[0]
    del node.input[:]
    node.input.extend([data, "", name])


def _spread_single_cells(graph: onnx.GraphProto, shapes: Shapes) -> None:
    """Let sums read a map of 1×1 directly instead of its enlargement: they repeat their second term."""
    read, outputs = readers(graph), {output.name for output in graph.output}
    for node in graph.node:
        enlarged = node.output[0]
        if node.op_type != "Resize" or shapes.get(node.input[0], [])[2:] != [1, 1] or enlarged in outputs:
            continue
        if any(reader.op_type != "Add" or reader.input[0] == reader.input[1] for reader in read[enlarged]):
            continue
        for reader in read[enlarged]:
            other = next(name for name in reader.input if name != enlarged)
            reader.input[:] = [other, node.input[0]]
