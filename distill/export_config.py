"""Configuration of what follows the trainings: the export to ONNX and INT8, and the accuracy budgets of both."""

import math
from dataclasses import dataclass

from deploy.quantize.limits import MIN_CALIBRATION_IMAGES
from distill.field_checks import at_least, require

MIN_OPSET = 18
"""Smallest ONNX opset that has all operators of an export."""
MAX_OPSET = 25
"""Largest that the exporter and ONNX Runtime were seen to share: 26 fails in the exporter's conversion."""
MAX_INT8_OPSET = 20
"""From 21 on, QuantizeLinear states its type a second time, and ONNX Runtime refuses our signed INT8 files."""


@dataclass(frozen=True)
class ExportConfig:
    """The export to ONNX, and the accuracy budget that each hop must meet."""

    max_drop: float = 0.001
    """Largest drop of the score from torch to any later hop: 0.001 is 0.1 points of mIoU or success, 0.1 % of RMSE."""
    min_agreement: float = 0.999
    """Smallest fraction of valid pixels whose label agrees with torch."""
    fold: bool = True
    """Export the same function with fewer operations: pyramids folded into heads (`teacher.fold`),
    transposed convolutions replaced by plain ones (`student.subpixel`)."""
    opset: int = 20
    """Version of the ONNX operator set."""

    def __post_init__(self) -> None:
        require(
            MIN_OPSET <= self.opset <= MAX_OPSET,
            "export",
            "opset",
            f"{self.opset}: must be in {MIN_OPSET}..{MAX_OPSET}",
        )
        for name in ("max_drop", "min_agreement"):
            value, flag = getattr(self, name), name.replace("_", "-")
            require(0 <= value <= 1, "export", flag, f"{value}: must be a fraction in 0..1")


@dataclass(frozen=True)
class Int8Config:
    """The student in INT8, and the images that a run writes for it (see `deploy.evaluation.labeled_data`)."""

    enabled: bool = True
    """Quantize the student to INT8."""
    max_drop: float = 0.005
    """Largest drop of the score from float32 to INT8 (see `export.max_drop`). Layers stay in float until it is met."""
    min_agreement: float = 0.98
    """Smallest fraction of valid pixels whose label agrees with float32."""
    calibration_images: int = 128
    """Number of training images that calibrate the ranges of activations."""
    val_images: int = 64
    """Number of validation images used to choose the calibrator and the layers that stay in float."""
    test_images: int = 256
    """Number of test images on which the INT8 model must meet the budget."""
    qat_steps: int = 0
    """Steps of quantization-aware training, with distillation; 0 = never.
    Run if post-training quantization needs layers in float or misses the budget."""
    qat_lr: float = 1e-5
    """Learning rate of quantization-aware training."""

    def __post_init__(self) -> None:
        minima = {
            "calibration_images": MIN_CALIBRATION_IMAGES,
            "val_images": 1,
            "test_images": 1,
            "qat_steps": 0,
        }
        for name, minimum in minima.items():
            at_least(minimum, "int8", name.replace("_", "-"), getattr(self, name))
        for name in ("max_drop", "min_agreement"):
            value, flag = getattr(self, name), name.replace("_", "-")
            require(0 <= value <= 1, "int8", flag, f"{value}: must be a fraction in 0..1")
        require(0 < self.qat_lr < math.inf, "int8", "qat-lr", f"{self.qat_lr}: must be above 0 and finite")
