"""Presets: functions that return a complete configuration, of which the command line can change single fields.

Those whose purpose does not end in "for a GPU" run on two cores.
`camvid`, `cityscapes` and `voc` follow the PSPNet paper (arXiv:1612.01105, §5).
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

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

GRASP_LOSS = LossConfig(task="bce")
GRASP_DISTILLATION = DistillConfig(loss="grasp_kl")
GRASP_INT8 = Int8Config(max_drop=0.01, min_agreement=0.97)
"""A drop of one point of success@1; labels say where a grasp is good."""


def smoke() -> RunConfig:
    """Smoke test: two steps of every stage on synthetic scenes (with a smaller teacher, which exports faster)."""
    train = TrainConfig(steps=2, batch_size=2, log_every=1)
    return RunConfig(
        data=DataConfig("synthetic", size=(48, 48), synthetic_counts=(8, 2, 2)),
        teacher=ModelConfig("pspnet/resnet50", output_stride=16),
        student=ModelConfig("pspnet/resnet18", output_stride=16, head_channels=128),
        teacher_train=train,
        student_train=train,
        augment=AugmentConfig(crop=(48, 48), vertical_flip=True),
        # after two steps the logits are nearly equal, so INT8 may flip any label
        int8=Int8Config(max_drop=1.0, min_agreement=0.0),
        out=Path("runs/smoke"),
    )


def quick() -> RunConfig:
    """The demo: synthetic SAR flood scenes; minutes on two cores."""
    return RunConfig(
        data=DataConfig("synthetic", size=(96, 96)),
        teacher=ModelConfig("pspnet/resnet101", output_stride=16, head_channels=128),
        student=ModelConfig("edge-small"),
        teacher_train=TrainConfig(steps=250, lr=3e-4, warmup=20),
        student_train=TrainConfig(steps=150, lr=2e-3, warmup=15),
        augment=AugmentConfig(crop=(64, 64), scale=(0.75, 1.5), vertical_flip=True),
        out=Path("runs/quick"),
    )


def quick_grasp() -> RunConfig:
    """Grasps of objects on a table from synthetic depth images; for two cores."""
    return RunConfig(
        data=DataConfig("tabletop", size=(96, 96), synthetic_counts=(600, 48, 300)),
        teacher=_grasp_network("pspnet/resnet34"),
        student=_grasp_network("pspnet/resnet18"),
        teacher_train=TrainConfig(steps=350, lr=1e-3, warmup=20),
        student_train=TrainConfig(steps=100, lr=1e-3, warmup=10),
        augment=_grasp_augmentation(96),
        loss=GRASP_LOSS,
        distill=GRASP_DISTILLATION,
        int8=GRASP_INT8,
        out=Path("runs/quick-grasp"),
    )


def grasp_300() -> RunConfig:
    """Built-in grasp scenes at 300×300: PSPNet-ResNet101 teaches PSPNet-ResNet50; up to three hours on two cores."""
    train = TrainConfig(steps=400, lr=5e-4, warmup=40, eval_every=200)
    return RunConfig(
        data=DataConfig("tabletop", size=(300, 300), synthetic_counts=(600, 48, 300)),
        teacher=ModelConfig("pspnet/resnet101", output_stride=16, dropout=0.0, detail=True),
        student=ModelConfig("pspnet/resnet50", output_stride=16, dropout=0.0, detail=True),
        teacher_train=train,
        student_train=replace(train, steps=600),
        augment=_grasp_augmentation(300),
        loss=GRASP_LOSS,
        distill=replace(GRASP_DISTILLATION, views=4),  # and the student starts from its teacher's weights
        int8=GRASP_INT8,
        baseline=False,  # another hour; --baseline trains it
        out=Path("runs/grasp-300"),
    )


def cornell_rgb() -> RunConfig:
    """Cornell with color images only (`cornell_rgb`), at reduced size; one hour on two cores."""
    return RunConfig(
        data=DataConfig("cornell_rgb", size=(128, 128), channels=("rgb",)),
        teacher=_grasp_network("pspnet/resnet34"),
        student=_grasp_network("pspnet/resnet18"),
        teacher_train=TrainConfig(steps=800, lr=1e-3, warmup=50, eval_every=400),
        student_train=TrainConfig(steps=400, lr=1e-3, warmup=50, eval_every=400),
        augment=_grasp_augmentation(128),
        loss=GRASP_LOSS,
        distill=GRASP_DISTILLATION,
        int8=GRASP_INT8,
        out=Path("runs/cornell-rgb"),
    )


def cornell() -> RunConfig:
    """Cornell from depth at 300×300, split by object: PSPNet-ResNet101 teaches PSPNet-ResNet50; for a GPU."""
    return _real_grasps("cornell", steps=10_000)


def jacquard() -> RunConfig:
    """Jacquard from depth at 300×300, split by object: PSPNet-ResNet101 teaches PSPNet-ResNet50; for a GPU."""
    return _real_grasps("jacquard", steps=60_000)


def camvid_cpu() -> RunConfig:
    """CamVid street scenes scored at full size, from ImageNet weights; 85 minutes of training on two cores."""
    train = TrainConfig(steps=1400, lr=1e-3, weight_decay=0.02, warmup=60, eval_every=700)
    return RunConfig(
        data=DataConfig("camvid", size=(360, 480)),
        teacher=ModelConfig(
            "pspnet/tf_efficientnet_lite2", output_stride=16, head_channels=128, pretrained=True
        ),
        student=ModelConfig(
            "pspnet/tf_efficientnet_lite0", output_stride=16, head_channels=128, pretrained=True
        ),
        teacher_train=train,
        student_train=train,
        distill=_regions(),
        augment=AugmentConfig(crop=(192, 256), scale=(0.5, 1.75)),
        loss=LossConfig(task="ce + dice"),
        max_minutes=85,
        out=Path("runs/camvid-cpu"),
    )


def ombria() -> RunConfig:
    """Floods in Sentinel-1 images from before and after, at half size; one hour on two cores."""
    train = TrainConfig(steps=800, lr=1e-3, weight_decay=0.01, warmup=50, eval_every=200)
    return RunConfig(
        data=DataConfig("ombria", size=(128, 128)),
        teacher=ModelConfig("pspnet/resnet34", output_stride=16, head_channels=128, detail=True),
        student=ModelConfig("pspnet/resnet18", output_stride=16, head_channels=128, detail=True),
        teacher_train=train,
        student_train=replace(train, steps=400, eval_every=100),
        augment=AugmentConfig(crop=(96, 96), scale=(0.75, 1.5), vertical_flip=True),
        loss=LossConfig(task="ce + dice"),
        out=Path("runs/ombria"),
    )


def camvid() -> RunConfig:
    """CamVid at full size: ImageNet backbones, SGD with poly schedule; for a GPU."""
    return RunConfig(
        data=DataConfig("camvid", size=(360, 480)),
        teacher=ModelConfig("pspnet/resnet101", pretrained=True),
        student=ModelConfig("pspnet/resnet50", pretrained=True),
        teacher_train=_paper_training(steps=10_000),
        student_train=_paper_training(steps=20_000),
        augment=AugmentConfig(crop=(360, 360), scale=(0.5, 2.0)),
        out=Path("runs/camvid"),
    )


def cityscapes() -> RunConfig:
    """Cityscapes as in the paper: 713² crops, 90k steps at batch 16, sliding-window evaluation; for a GPU."""
    return RunConfig(
        data=DataConfig("cityscapes", size=(713, 713), resize="tile", cache=False),
        teacher=ModelConfig("pspnet/resnet101", pretrained=True),
        student=ModelConfig("pspnet/resnet18", pretrained=True, head_channels=256),
        teacher_train=_paper_training(steps=90_000),
        student_train=_paper_training(steps=90_000),
        augment=AugmentConfig(crop=(713, 713), scale=(0.5, 2.0)),
        out=Path("runs/cityscapes"),
    )


def voc() -> RunConfig:
    """PASCAL VOC 2012 as in the paper: 473² crops, 30k steps at batch 16; for a GPU."""
    return RunConfig(
        data=DataConfig("voc", size=(473, 473), resize="tile", cache=False),
        teacher=ModelConfig("pspnet/resnet101", pretrained=True),
        student=ModelConfig("pspnet/mobilenetv3_large_100", pretrained=True, head_channels=256),
        teacher_train=_paper_training(steps=30_000),
        student_train=_paper_training(steps=30_000),
        augment=AugmentConfig(crop=(473, 473), scale=(0.5, 2.0)),
        out=Path("runs/voc"),
    )


def folder() -> RunConfig:
    """Your own images and masks, `--data.root FOLDER`: `folder-gpu` where there is a GPU, else `folder-cpu`."""
    import torch  # start-up time: only this preset looks for a GPU

    return folder_gpu() if torch.cuda.is_available() else folder_cpu()


def folder_cpu() -> RunConfig:
    """Your own images and masks without a GPU, below an hour: `edge-small`, and a teacher with ImageNet weights."""
    return RunConfig(
        data=DataConfig("folder", size=(256, 256)),
        teacher=ModelConfig(
            "pspnet/tf_efficientnet_lite2", output_stride=16, head_channels=128, pretrained=True
        ),
        student=ModelConfig("edge-small"),
        teacher_train=TrainConfig(steps=400, lr=5e-4, weight_decay=0.01, warmup=40, eval_every=100),
        student_train=TrainConfig(steps=1500, lr=2e-3, weight_decay=0.01, warmup=100, eval_every=250),
        augment=AugmentConfig(crop=(224, 224), scale=(0.5, 2.0)),
        distill=_regions(),
        baseline=False,  # a network more to train; --baseline trains it
        max_minutes=45,
        out=Path("runs/folder"),
    )


def folder_gpu() -> RunConfig:
    """Your own images and masks at 288×288: `edge-medium` taught by PSPNet-ResNet101; for a GPU."""
    return RunConfig(
        data=DataConfig("folder", size=(288, 288)),
        teacher=ModelConfig("pspnet/resnet101", output_stride=16, pretrained=True),
        student=ModelConfig("edge-medium"),
        teacher_train=TrainConfig(steps=4000, lr=5e-4, warmup=200, workers=8, eval_every=500),
        student_train=TrainConfig(steps=8000, lr=1e-3, warmup=200, workers=8, eval_every=1000),
        augment=AugmentConfig(crop=(288, 288), scale=(0.5, 2.0)),
        out=Path("runs/folder"),
    )


def _regions() -> DistillConfig:
    """The best that was measured for networks with ImageNet weights (docs/distillation.md, docs/unlabeled.md)."""
    return DistillConfig(loss="jaccard", unlabeled_loss="2*kl(t=1) + 2*jaccard", unlabeled_aux="0.8*kl(t=1)")


def _real_grasps(name: Literal["cornell", "jacquard"], steps: int) -> RunConfig:
    return RunConfig(
        data=DataConfig(name, size=(300, 300)),
        teacher=ModelConfig("pspnet/resnet101", detail=True, dropout=0.0, pretrained=True),
        student=ModelConfig("pspnet/resnet50", detail=True, dropout=0.0, pretrained=True),
        teacher_train=_grasp_training(steps),
        student_train=_grasp_training(steps),
        augment=_grasp_augmentation(300),
        loss=GRASP_LOSS,
        distill=GRASP_DISTILLATION,
        int8=GRASP_INT8,
        out=Path(f"runs/{name}"),
    )


def _grasp_network(arch: str) -> ModelConfig:
    """A network for small images; `detail` compensates for the coarse output stride."""
    return ModelConfig(arch, output_stride=16, head_channels=128, dropout=0.0, detail=True)


def _grasp_training(steps: int) -> TrainConfig:
    return TrainConfig(steps=steps, batch_size=16, lr=5e-4, warmup=500, workers=8, eval_every=steps // 10)


def _grasp_augmentation(side: int) -> AugmentConfig:
    return AugmentConfig(crop=(side, side), scale=(0.9, 1.2), rotate=180.0, vertical_flip=True)


def _paper_training(steps: int) -> TrainConfig:
    return TrainConfig(
        steps=steps,
        batch_size=16,
        optimizer="sgd",
        schedule="poly",
        lr=0.01,
        head_lr_factor=10,
        weight_decay=1e-4,
        workers=8,
        eval_every=max(1000, steps // 10),
        checkpoint_every=1000,
        log_every=50,
    )


PRESETS: dict[str, Callable[[], RunConfig]] = {
    "smoke": smoke,
    "quick": quick,
    "quick-grasp": quick_grasp,
    "grasp-300": grasp_300,
    "camvid-cpu": camvid_cpu,
    "ombria": ombria,
    "camvid": camvid,
    "cornell-rgb": cornell_rgb,
    "cornell": cornell,
    "jacquard": jacquard,
    "cityscapes": cityscapes,
    "voc": voc,
    "folder": folder,
    "folder-cpu": folder_cpu,
    "folder-gpu": folder_gpu,
}
