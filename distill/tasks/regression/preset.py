"""The preset of dense regression."""

from pathlib import Path

from distill.config import (
    AugmentConfig,
    DataConfig,
    DistillConfig,
    LossConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
)
from distill.export_config import Int8Config


def quick_depth() -> RunConfig:
    """Depth of objects on a table from color, built-in, for two cores."""
    return RunConfig(
        data=DataConfig("tabletop_depth", size=(96, 96), synthetic_counts=(400, 48, 100)),
        teacher=ModelConfig("pspnet/resnet34", output_stride=16, head_channels=128, detail=True),
        student=ModelConfig("pspnet/resnet18", output_stride=16, head_channels=128, detail=True),
        teacher_train=TrainConfig(steps=250, lr=1e-3, warmup=20),
        student_train=TrainConfig(steps=100, lr=1e-3, warmup=10),
        # light falls from one side in all scenes, so they are mirrored top-bottom only
        augment=AugmentConfig(
            crop=(96, 96), scale=(1.0, 1.0), flip=False, vertical_flip=True, photometric=0.2
        ),
        loss=LossConfig(task="smooth_l1"),
        distill=DistillConfig(loss="mse"),
        int8=Int8Config(max_drop=0.05, min_agreement=0.9),
        out=Path("runs/quick-depth"),
    )
