"""The 8-bit numbers that tensors are rounded to."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, helper

from deploy.quantize.calibrators import LEVELS
from deploy.quantize.options import Precision


@dataclass(frozen=True)
class Format:
    """An 8-bit format with a scale and without a zero point.

    Attributes:
        name: of the precision, and the ending of the names of tensors in it.
        dtype: of the numbers.
        largest: the number that a tensor's range becomes.
        per_channel: whether weights have a scale for each output. Floating point needs none as long as the outputs'
            weights differ by less than a factor of a thousand; and with one scale a tensor TensorRT-RTX computes bias
            and ReLU within the convolution.
        sums: whether the terms of sums are rounded, which TensorRT adds in integers; floats it adds in half precision.
        largest_kernel: the largest side of a convolution's kernel. TensorRT-RTX 1.7 computes 7×7 in half precision and
            not in FP8, and then multiplies the weights out at every call.
        opset: the first opset that has the format.
    """

    name: Precision
    dtype: np.dtype
    largest: float
    per_channel: bool
    sums: bool
    largest_kernel: float
    opset: int


INT8 = Format(
    "int8", np.dtype(np.int8), LEVELS, per_channel=True, sums=True, largest_kernel=math.inf, opset=13
)
FP8 = Format(
    "fp8",
    helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E4M3FN),
    448.0,
    per_channel=False,
    sums=False,
    largest_kernel=5,
    opset=19,
)
"""E4M3: four bits of exponent, three of mantissa, without infinity (arXiv:2209.05433)."""
FORMATS: Mapping[Precision, Format] = {"int8": INT8, "fp8": FP8}
