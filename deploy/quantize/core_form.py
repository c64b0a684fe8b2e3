"""The core of a network, for a device that has convolutions and little else: no cast, no normalization, no labels.

cut         the part from the normalized image to the logits, float32; what is cut off, the runtime computes
            (`deploy.backends.core`)
core_form   the same in half precision, with means and enlargements as a DLA has them
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError
from deploy.quantize.dla_layers import as_dla_layers
from deploy.quantize.graph import constants, load, producers, readers, rebuilt
from deploy.quantize.half import LARGEST

IMAGE, LOGITS = "image", "logits"


def core_form(model: bytes, spec: InputSpec, batch: int) -> bytes:
    """The core of a network in half precision throughout, as a DLA computes.

    Args:
        model: the bundle's fp32 or FP16 file.
        spec: the bundle's input.
        batch: the number of images, which is fixed.

    Returns:
        ONNX: "image", float16 N×C×H×W, the normalized image, to "logits", float16 N×K×h×w.

    Raises:
        UserError: as `cut`, or a weight is beyond ±65504.
    """
    proto = load(cut(model, spec, batch))
    _halve(proto)
    as_dla_layers(shape_inference.infer_shapes(proto, data_prop=True).graph, proto.graph)
    return _needed(proto)


def cut(model: bytes, spec: InputSpec, batch: int) -> bytes:
    """The part of a network from its normalized image, float32 N×C×H×W, to its logits.

    Raises:
        UserError: the network does not begin with the normalization of the manifest, or scales pixels there, or the
            model is damaged.
    """
    if spec.scale.name != "linear":
        raise UserError(
            f"the network scales its pixels (--data.scale {spec.scale.name}), which the CPU does not do for a core;"
            " allow the GPU to run the rest"
        )
    proto = load(model)
    graph = proto.graph
    normal = _normalized(graph, spec)
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = IMAGE if name == normal else name
        # the new input keeps its name for itself
        for index, name in enumerate(node.output):
            node.output[index] = f"{IMAGE}.before" if name == IMAGE else name
    del graph.input[:]
    shape = [batch, len(spec.channels), spec.height, spec.width]
    graph.input.append(helper.make_tensor_value_info(IMAGE, TensorProto.FLOAT, shape))
    logits = [output for output in graph.output if output.name == LOGITS]
    del graph.output[:]
    graph.output.extend(logits)
    for value in (*graph.value_info, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = batch
    return _needed(proto)


def _normalized(graph: onnx.GraphProto, spec: InputSpec) -> str:
    """The normalized image N×C×H×W; `UserError` where the graph does something else with the image first."""
    read, weights, name = readers(graph), constants(graph), graph.input[0].name
    mean, scale = np.array(spec.mean, np.float32), 1 / np.array(spec.std, np.float32)
    needed = {"Sub": mean.any(), "Mul": (scale != 1).any(), "Transpose": spec.layout == "NHWC"}
    done: set[str] = set()
    channels_last = spec.layout == "NHWC"
    while len(read[name]) == 1:
        node = read[name][0]
        kind = {"Div": "Mul"}.get(node.op_type, node.op_type)
        if kind in done or (kind == "Sub" and "Mul" in done):
            break
        if kind in ("Sub", "Mul"):
            wanted = {"Sub": mean, "Mul": scale, "Div": np.array(spec.std, np.float32)}[node.op_type]
            wanted = wanted if channels_last else wanted[:, None, None]
            constant = weights.get(node.input[1])
            if constant is None or not _equal(numpy_helper.to_array(constant), wanted):
                break
        elif kind == "Transpose" and channels_last:
            channels_last = False
        elif kind != "Cast":
            break
        done |= {kind} - {"Cast"}
        name = node.output[0]
    if missing := [kind for kind, matters in needed.items() if matters and kind not in done]:
        raise UserError(
            f"the network does not begin with the manifest's normalization ({', '.join(missing)} not found);"
            " export it again"
        )
    return name


def _equal(value: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether a constant of any number of axes holds the numbers of the channels."""
    try:
        return bool(np.all(value == wanted))
    except ValueError:  # shapes that do not go together
        return False


def _halve(proto: onnx.ModelProto) -> None:
    """Make every float of the network float16, and leave casts between floats out."""
    graph = proto.graph
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            value = numpy_helper.to_array(tensor)
            if np.abs(value).max(initial=0) > LARGEST:
                raise UserError(f"tensor {tensor.name} has values beyond ±{LARGEST:.0f}, too large for fp16")
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float16), tensor.name))
    for node in graph.node:
        to = next((one.i for one in node.attribute if one.name == "to"), None)
        if node.op_type == "Cast" and to in floats:
            node.op_type = "Identity"
            del node.attribute[:]
    _without_identities(graph)


def _without_identities(graph: onnx.GraphProto) -> None:
    """Let the readers of a copy read the original; the logits keep their name."""
    made = producers(graph)
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = _original(name, made)
    last = made[LOGITS]
    if last.op_type != "Identity":
        return
    source = last.input[0]
    if source not in made:  # the image itself
        return
    last.output[0] = f"{LOGITS}.copy"
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = LOGITS if name == source else name


def _original(name: str, made: dict[str, onnx.NodeProto]) -> str:
    while name in made and made[name].op_type == "Identity":
        name = made[name].input[0]
    return name


def _needed(proto: onnx.ModelProto) -> bytes:
    """The model with the nodes that the logits are computed by; `UserError` where they need more than the image."""
    graph, needed = proto.graph, {LOGITS}
    kept = []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            needed.update(node.input)
            kept.append(node)
    made = {name for node in kept for name in node.output}
    missing = needed - made - constants(graph).keys() - {IMAGE, ""}
    if missing:
        raise UserError(
            f"the logits need {', '.join(sorted(missing))}, and not the normalized image alone;"
            " allow the GPU to run the rest"
        )
    values = [value for value in graph.value_info if value.name in made]
    del graph.value_info[:]
    graph.value_info.extend(values)
    return rebuilt(proto, list(reversed(kept)), {})
