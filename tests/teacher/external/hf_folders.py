"""Tiny networks of transformers with random weights, saved as their users save them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

NAMES = ("sky", "road", "car", "tree", "pole")
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
TINY_VIT = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 64}
SWIN_STAGES = [f"stage{number}" for number in (1, 2, 3, 4)]


def _segformer(labels: Mapping[str, Any]) -> Any:
    config = transformers.SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 24, 32],
        decoder_hidden_size=16,
        num_attention_heads=[1, 1, 2, 2],
        **labels,
    )
    return transformers.SegformerForSemanticSegmentation(config)


def _upernet(labels: Mapping[str, Any]) -> Any:
    stages = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32], "out_features": SWIN_STAGES}
    backbone = transformers.ConvNextConfig(**stages)
    config = transformers.UperNetConfig(
        backbone_config=backbone, hidden_size=16, auxiliary_in_channels=24, auxiliary_channels=16, **labels
    )
    return transformers.UperNetForSemanticSegmentation(config)


def _beit(labels: Mapping[str, Any]) -> Any:
    stages: dict[str, Any] = {"out_indices": [1, 2, 3, 4]}
    config = transformers.BeitConfig(**TINY_VIT, intermediate_size=32, patch_size=16, **stages, **labels)
    return transformers.BeitForSemanticSegmentation(config)


def _dpt(labels: Mapping[str, Any]) -> Any:
    config = transformers.DPTConfig(
        **TINY_VIT,
        intermediate_size=32,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        **labels,
    )
    return transformers.DPTForSemanticSegmentation(config)


def _mask2former(labels: Mapping[str, Any]) -> Any:
    swin = transformers.SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        **{"out_features": SWIN_STAGES},
    )
    widths = dict.fromkeys(
        ("feature_size", "mask_feature_size", "hidden_dim", "encoder_feedforward_dim", "dim_feedforward"), 32
    )
    config = transformers.Mask2FormerConfig(
        backbone_config=swin,
        **widths,
        encoder_layers=1,
        decoder_layers=3,
        num_attention_heads=2,
        num_queries=8,
        **labels,
    )
    return transformers.Mask2FormerForUniversalSegmentation(config)


def _eomt(labels: Mapping[str, Any]) -> Any:
    config = transformers.EomtConfig(**TINY_VIT, patch_size=16, num_blocks=1, num_queries=6, **labels)
    return transformers.EomtForUniversalSegmentation(config)


def _dinov2(_: Mapping[str, Any]) -> Any:
    return transformers.Dinov2Model(transformers.Dinov2Config(**TINY_VIT | {"image_size": 56}, patch_size=14))


def _dinov3(_: Mapping[str, Any]) -> Any:
    return transformers.DINOv3ViTModel(
        transformers.DINOv3ViTConfig(**TINY_VIT, intermediate_size=32, patch_size=16)
    )


MAKERS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "segformer": _segformer,
    "upernet": _upernet,
    "beit": _beit,
    "dpt": _dpt,
    "mask2former": _mask2former,
    "eomt": _eomt,
    "dinov2": _dinov2,
    "dinov3": _dinov3,
}
BACKBONES = ("dinov2", "dinov3")


def saved(folder: Path, kind: str, names: tuple[str, ...] = NAMES, **preprocessor: Any) -> Any:
    """Save a network of a kind with random weights, and return it.

    Args:
        folder: to be written.
        kind: one of `MAKERS`.
        names: of the classes.
        preprocessor: entries of `preprocessor_config.json`; without any there is no such file.
    """
    torch.manual_seed(0)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    network = MAKERS[kind](labels).eval()
    network.save_pretrained(folder)
    if preprocessor:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return network
