"""The files that `edgedistill build` adds to a bundle for each precision, and the data that it needs for them."""

from collections.abc import Mapping

from deploy.bundle.manifest import FP8, FP16, INT8, INT8_CPU, QUANTIZATION
from deploy.quantize.options import Form, Precision

FORMS: Mapping[Precision, Mapping[Form, str]] = {
    "int8": {"tensorrt": INT8, "cpu": INT8_CPU},
    "fp8": {"tensorrt": FP8},
}
"""Model files of the forms of a quantized model."""
RECORDS = {"int8": (QUANTIZATION, "sensitivity.svg"), "fp8": ("quantization.fp8.json", "sensitivity.fp8.svg")}
"""How it was made, and the ranking of its layers."""
MADE = {"int8": (INT8, INT8_CPU), "fp8": (FP8,), "fp16": (FP16,), "fp32": ()}
"""Model files of each precision, besides the one that the bundle was exported with."""
REPLACED = {name: (*files, *RECORDS.get(name, ())) for name, files in MADE.items()}
"""All files that are replaced when a precision is made again."""
NEEDED = {name: ("calibration", "val", "test") if name in FORMS else ("test",) for name in MADE}
"""Folders of labeled data needed to make a precision; verifying it needs only `test`."""
