"""Run the core of a network in ONNX Runtime."""

import numpy as np
import onnxruntime


def core_logits(core: bytes, images: np.ndarray) -> np.ndarray:
    """The logits of normalized images N×C×H×W, operator by operator."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(core, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"image": images})[0])
