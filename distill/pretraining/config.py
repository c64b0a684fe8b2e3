"""Settings of a pre-training."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deploy.errors import UserError
from distill.config import TrainConfig
from distill.data_config import MIN_SIDE, AugmentConfig


@dataclass(frozen=True)
class PretrainConfig:
    """A student's backbone learns a teacher's feature maps on images without labels."""

    images: tuple[Path, ...]
    """Folders of images, each as for `DataConfig.unlabeled`."""
    student: str = "edge-small"
    """Student whose backbone is trained: `edge-*`, `edge/<width>`, `pspnet/` or `deeplabv3plus/` with a timm name."""
    teacher: str = "tf_efficientnet_lite2"
    """timm's name of the network that teaches, with its ImageNet weights (see `ModelConfig.pretrained`)."""
    loss: str = "cosine(layer3) + cosine(layer4)"
    """Weighted sum of losses between feature maps. `layer4` is the last map of each backbone, `layer3` the one before,
    and so on; `edgedistill losses` lists the losses."""
    channels: tuple[str, ...] = ()
    """Names of the image channels; needed where each channel has a folder of its own."""
    size: tuple[int, int] = (160, 160)
    """Height and width to which images are resized before they are cropped, in pixels."""
    augment: AugmentConfig = field(default_factory=lambda: AugmentConfig(crop=(128, 128)))
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(steps=2000, lr=2e-3, weight_decay=0.01, warmup=100)
    )
    cache: bool = True
    """Keep decoded images (at `size`) in memory."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of training, as for `RunConfig.precision`."""
    seed: int = 0
    """Seed of initial weights, image order and augmentation."""
    out: Path = Path("runs/pretrain")
    """Folder of checkpoints, logs and the result, `backbone.safetensors`."""
    resume: bool = False
    """Continue an interrupted pre-training in `out`."""

    def __post_init__(self) -> None:
        crop = self.augment.crop
        if min(self.size) < MIN_SIDE:
            raise UserError(f"--size {self.size[0]} {self.size[1]}: sides must be at least {MIN_SIDE}")
        if crop[0] > self.size[0] or crop[1] > self.size[1]:
            raise UserError(
                f"--augment.crop {crop[0]} {crop[1]}: is larger than --size {self.size[0]} {self.size[1]}, to which"
                " images are resized"
            )
        if self.augment.balance:
            raise UserError(
                f"--augment.balance {self.augment.balance:g}: is for images with labels; leave it out"
            )
        if self.train.steps < 1:
            raise UserError("--train.steps 0: must be at least 1")
