"""Run the INT8 model for TensorRT on a CPU, with the values that TensorRT computes."""

from importlib.util import find_spec
from pathlib import Path

from deploy.backends.onnxruntime_cpu import OrtEngine, import_onnxruntime
from deploy.errors import UserError

ROUNDS = (1, 30)
"""First ONNX Runtime whose QuantizeLinear rounds float16 values. Those before cut the fraction off, so that half of
random values differ by 1: 1.29.0, and 1.23.2, the last for Python 3.10."""


def simulated(model: bytes | Path) -> OrtEngine:
    """Open a model with float16 scales in ONNX Runtime, without its kernels for INT8.

    Raises:
        UserError: the model does not load; or as `computed_right`.
    """
    data = model.read_bytes() if isinstance(model, Path) else model
    return OrtEngine(computed_right(data), int8_kernels=False)


def computed_right(model: bytes) -> bytes:
    """The model in a form that the installed ONNX Runtime computes right.

    Raises:
        UserError: that form can only be made with the package onnx.
    """
    installed = import_onnxruntime().__version__
    if tuple(int(part) for part in installed.split(".")[:2]) >= ROUNDS:
        return model
    if find_spec("onnx") is None:
        raise UserError(
            f"onnxruntime {installed} computes INT8 for TensorRT right only with the package onnx:"
            " pip install 'edgedistill[quantize]'"
        )
    from deploy.quantize.rounding import rounded_in_float32  # optional dependency

    return rounded_in_float32(model)
