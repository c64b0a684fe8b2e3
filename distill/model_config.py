"""The section of a run's configuration that describes a network."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distill.field_checks import at_least, require


@dataclass(frozen=True)
class ModelConfig:
    """Architecture and initial weights of a network."""

    arch: str
    """`pspnet/<timm backbone>`, a name from `edgedistill students`, `smp/<Architecture>/<encoder>`,
    `torchvision/<name>`, `hf/<folder or id>`, or your own `package.module:function` (see docs/teachers.md).
    Options it lacks must keep their defaults."""
    output_stride: Literal[2, 4, 8, 16, 32] = 8
    """Output stride of the backbone of PSPNet and DeepLabV3+ (8, 16, 32), or of EdgeNet's outputs (8, 4, 2); that of
    other architectures, and of backbones that cannot be dilated, is fixed."""
    head_channels: int = 512
    """Width of PSPNet's 3×3 head convolution (512 in the paper), or of DeepLabV3+'s pyramid and decoder (256)."""
    dropout: float = 0.1
    """Dropout rate in the head."""
    detail: bool | None = None
    """Finer outputs for small objects and maps: of PSPNet at half of the image size, of EdgeNet at a quarter.
    Default: this, or EdgeNet's `output_stride` 2, where the training labels ask for it (see
    `distill.pipeline.resolution`)."""
    depths: tuple[int, int, int, int] | None = None
    """Residual blocks of EdgeNet's four stages. Default: those of its weights file, or else 1 1 1 1."""
    align_corners: bool = False
    """Upsample the averages of PSPNet's pyramid with aligned corners, as semseg's published networks do."""
    contract_dilation: bool = True
    """The first block of a dilated stage of PSPNet's ResNet keeps the dilation of the stage before, as in timm and
    MMSegmentation; off for semseg's published networks, which dilate it as well."""
    head: Literal["pyramid", "linear"] = "pyramid"
    """Head on a backbone of `hf/…`, such as DINOv2: PSPNet's pyramid, or a batch norm and a 1×1 convolution."""
    pretrained: bool = False
    """Start from published weights: the backbone from ImageNet's, `torchvision/…` and `hf/…` from those of the whole
    network (from a package, a cache or a hub; docs/teachers.md)."""
    weights: Path | None = None
    """Local file of weights (.safetensors, or .pth read with weights_only) for the backbone or the whole network."""
    bundle: Path | None = None
    """For the teacher: the folder of a bundle or a run, or an ONNX file, whose scores teach. It is not trained, and
    `arch` is of no meaning (see docs/teachers.md)."""
    mean: tuple[float, ...] = ()
    """For a teacher that is an ONNX file for float32 images, or a network of your own that is used as it is: mean of
    each channel, in the units of the images."""
    std: tuple[float, ...] = ()
    """The same for the standard deviation."""
    classes: Path | None = None
    """For a teacher that is used as it is and has other classes than the data: a JSON file that maps each of them to a
    class of the data or to null, such as `{"car": "vehicle", "sky": null}`."""
    max_ms: float = 0.0
    """For the student: train the largest network of the family of `arch` whose inference takes at most so many
    milliseconds (median, engine alone), measured untrained before the training. 0 = train `arch`."""
    on: Path | None = None
    """Where `max_ms` holds: a file that `edgedistill measure` wrote on the device. Default: the CPU of this machine."""

    def __post_init__(self) -> None:
        # "student" stands for both networks in messages
        at_least(1, "student", "head-channels", self.head_channels)
        at_least(1, "student", "depths", min(self.depths or (1,)))
        require(
            0 <= self.dropout < 1, "student", "dropout", f"{self.dropout}: must be at least 0 and below 1"
        )
        positive = all(0 < value < math.inf for value in self.std)
        require(positive, "teacher", "std", "must be above 0 and finite")
        require(all(map(math.isfinite, self.mean)), "teacher", "mean", "must be finite")
        require(
            0 <= self.max_ms < math.inf,
            "student",
            "max-ms",
            f"{self.max_ms:g}: must be above 0, or 0 for no budget",
        )
