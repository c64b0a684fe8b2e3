"""Rounding to the INT8 grid in float32, for runtimes that cannot do it in float16."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy.quantize.graph import constants, load, rebuilt


def rounded_in_float32(model: bytes) -> bytes:
    """Let every QuantizeLinear with a float16 scale read float32 values and the same scale in float32.

    The results are those of QuantizeLinear's definition for float16: each value is divided and rounded exactly.

    Raises:
        UserError: the bytes are not a model.
    """
    proto = load(model)
    known, nodes = constants(proto.graph), list[onnx.NodeProto]()
    added: dict[str, np.ndarray | np.generic] = {}
    for node in proto.graph.node:
        scale = known.get(node.input[1]) if node.op_type == "QuantizeLinear" else None
        if scale is not None and scale.data_type == TensorProto.FLOAT16:
            data, wide = f"{node.output[0]}.data", f"{node.output[0]}.scale"
            nodes.append(helper.make_node("Cast", [node.input[0]], [data], to=TensorProto.FLOAT))
            added[wide] = numpy_helper.to_array(scale).astype(np.float32)
            node.input[0], node.input[1] = data, wide
        nodes.append(node)
    return rebuilt(proto, nodes, added)
