"""What TensorRT computes of an fp32 model on GPUs from Ampere on: TF32, unless it is built with `--no-tf32`."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from deploy.quantize.graph import PRODUCTS, constants, load_float, rebuilt

SPLITTER = "tf32.splitter"
LOST = 13
"""Bits of a float32's 23-bit mantissa that TF32 does not have. (NVIDIA, "A100 Tensor Core GPU Architecture": range of
float32, precision of float16.)"""


def as_tf32(model: bytes) -> bytes:
    """Round the operands of every convolution and matrix product to TF32; products are added in float32, as on the GPU.

    Constants are rounded here, other tensors in the graph by Veltkamp's splitting: with c = (2¹³ + 1)·x, the value
    c - (c - x) is x rounded to the nearest number with a mantissa of 10 bits (T. J. Dekker, "A floating-point technique
    for extending the available precision", 1971). So it holds up to values of 2¹¹⁴.

    Raises:
        UserError: the bytes are not a model in fp32.
    """
    proto = load_float(model)
    known, rounded, nodes = constants(proto.graph), dict[str, str](), list[onnx.NodeProto]()
    added: dict[str, np.ndarray | np.generic] = {SPLITTER: np.float32(2**LOST + 1)}
    for node in proto.graph.node:
        for index in (0, 1) if node.op_type in PRODUCTS else ():
            name = node.input[index]
            if name not in rounded:
                rounded[name] = f"{name}.tf32"
                if name in known:
                    added[rounded[name]] = round_to_tf32(numpy_helper.to_array(known[name]))
                else:
                    nodes += _splitting(name, rounded[name])
            node.input[index] = rounded[name]
        nodes.append(node)
    return rebuilt(proto, nodes, added)


def round_to_tf32(values: np.ndarray) -> np.ndarray:
    """Round float32 values to the nearest with a mantissa of 10 bits, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    half = np.uint32((1 << (LOST - 1)) - 1)
    bits = bits + half + ((bits >> np.uint32(LOST)) & np.uint32(1))
    return (bits & np.uint32(0xFFFFFFFF << LOST & 0xFFFFFFFF)).view(np.float32).reshape(values.shape)


def _splitting(name: str, result: str) -> list[onnx.NodeProto]:
    wide, rest = f"{name}.tf32.wide", f"{name}.tf32.rest"
    return [
        helper.make_node("Mul", [name, SPLITTER], [wide]),
        helper.make_node("Sub", [wide, name], [rest]),
        helper.make_node("Sub", [wide, rest], [result]),
    ]
