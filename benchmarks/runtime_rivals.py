"""What `benchmarks/runtime.py` compares the runtime with: the bare engine, and a runtime written in an hour."""

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
import onnx
from onnx.shape_inference import infer_shapes
from onnx.utils import Extractor

from deploy.backends.onnxruntime_cpu import import_onnxruntime
from deploy.backends.openvino_cpu import shared_core
from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError

Session = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""Runs one input tensor; outputs by name."""


def session(backend: str, model: bytes, threads: int | None) -> Session:
    """A model in ONNX Runtime or OpenVINO, called as their introductions do."""
    return {"onnxruntime": _onnxruntime, "openvino": _openvino}[backend](model, threads)


def _onnxruntime(model: bytes, threads: int | None) -> Session:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    # Its spinning threads would slow down whatever is measured next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    found = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    [given] = found.get_inputs()
    names = [output.name for output in found.get_outputs()]
    return lambda batch: dict(zip(names, found.run(names, {given.name: batch}), strict=True))


def _openvino(model: bytes, threads: int | None) -> Session:
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    config |= {} if threads is None else {"INFERENCE_NUM_THREADS": threads}
    core, _ = shared_core()
    network = core.read_model(model)
    _, *sizes = network.inputs[0].partial_shape
    network.reshape([1, *sizes])
    compiled = core.compile_model(network, "CPU", config)
    request, names = compiled.create_infer_request(), [output.any_name for output in compiled.outputs]

    def run(batch: np.ndarray) -> Mapping[str, np.ndarray]:
        found = request.infer([batch])
        return {name: found[name] for name in names}

    return run


def naive_form(model: bytes) -> bytes:
    """The network as it is usually exported: normalized float32 N×3×H×W in, scores float32 N×K×H×W out.

    Raises:
        UserError: the graph has no normalization or no arg-max that could be cut off.
    """
    whole = infer_shapes(onnx.load_from_string(model))
    first = next((node for node in whole.graph.node if node.op_type == "Transpose"), None)
    last = next((node for node in reversed(whole.graph.node) if node.op_type == "ArgMax"), None)
    if first is None or last is None:
        raise UserError("the naive runtime needs a graph with uint8 input and an arg-max")
    return Extractor(whole).extract_model([first.output[0]], [last.input[0]]).SerializeToString()


def naive_runtime(run: Session, spec: InputSpec) -> Callable[[np.ndarray], np.ndarray]:
    """Everything around the engine in OpenCV and numpy.

    Args:
        run: a session of `naive_form`.
        spec: size, scale, mean and standard deviation of the network's input.

    Returns:
        A function from an image uint8 H×W×3 to labels uint8 H×W.
    """
    low, high = (None if bound is None else np.asarray(bound, np.float32) for bound in spec.scale.bounds)
    mean, std = np.asarray(spec.mean, np.float32), np.asarray(spec.std, np.float32)

    def predict(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        small = cv2.resize(image, (spec.width, spec.height), interpolation=cv2.INTER_AREA)
        normalized = (spec.scale.scaled(small.astype(np.float32), (low, high), np) - mean) / std
        [scores] = run(np.ascontiguousarray(normalized.transpose(2, 0, 1)[None])).values()
        labels = scores[0].argmax(axis=0).astype(np.uint8)
        return cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)

    return predict
