"""The description of a network in its checkpoint: architecture, channels, classes and normalization."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from deploy.bundle.pixel_scale import LINEAR, PixelScale, ScaleName
from deploy.errors import UserError
from distill.config import ModelConfig
from distill.data.stats import Stats
from distill.tasks.task import PreparedData
from distill.training.checkpoint import Meta, load_network, read_meta
from student.edge import DEPTHS
from student.zoo import build_network, has_option, unrecorded_depths
from teacher.external.own_network import is_own

FIELDS = ("arch", "output_stride", "head_channels", "detail", "align_corners", "contract_dilation", "head")
Normalization = tuple[tuple[float, ...], tuple[float, ...], PixelScale]
TOLERANCE = 0.05
"""Largest difference between two normalizations: of means and of a scale's limits, in standard deviations; of
deviations, relative."""


def checkpoint_metadata(model: ModelConfig, aux: bool, data: PreparedData) -> Meta:
    """The entries of a checkpoint's metadata that `check_metadata` and `network_from` read.

    Args:
        model: architecture of the network.
        aux: whether it has an auxiliary head.
        data: the data that it is trained on.
    """
    splits, stats = data.splits, data.stats
    return {
        "model": recorded_options(model) | {"aux": aux},
        "channels": list(splits.channels),
        "classes": [info.name for info in splits.classes],
        "mean": list(stats.mean),
        "std": list(stats.std),
        "normalize": stats.normalize,
        **asdict(stats.scale),
        **data.task.metadata(stats),
    }


def recorded_options(model: ModelConfig) -> dict[str, Any]:
    """The architecture of a network and those of its options that shape it, as `build_network` takes them."""
    found = {name: value for name, value in asdict(model).items() if name in FIELDS}
    found["detail"] = bool(model.detail)
    if has_option(model.arch, "depths"):
        found["depths"] = model.depths or DEPTHS
    return found


def check_metadata(path: Path, meta: Meta, data: PreparedData) -> None:
    """Check that a network fits the data without further training.

    Args:
        path: the checkpoint, for messages.
        meta: its metadata.
        data: the data of the run.

    Raises:
        UserError: the network was trained with other classes, channels, normalization, or outputs of another meaning.
    """
    splits, stats = data.splits, data.stats
    for name, ours in (
        ("channels", list(splits.channels)),
        ("classes", [info.name for info in splits.classes]),
    ):
        theirs = meta[name]
        if theirs != ours:
            raise UserError(
                f"{path}: was trained with {len(theirs)} {name} ({_some(theirs)}), the data has {len(ours)}"
                f" ({_some(ours)}); use a teacher trained on this data"
            )
    theirs = meta.get("normalize", "set")
    if theirs != stats.normalize:
        raise UserError(
            f"{path}: was trained with --data.normalize {theirs}, this run has {stats.normalize}; use {theirs} here, or"
            " another teacher"
        )
    check_scale(path, meta, stats.scale.name, "another teacher")
    data.task.check_metadata(path, meta, stats)
    _check_normalization(path, meta, stats)


def check_scale(path: Path, meta: Meta, ours: ScaleName, instead: str) -> None:
    """Raise `UserError` if a network was trained with another `DataConfig.scale` than `ours`.

    Args:
        path: its checkpoint, for messages.
        meta: its metadata.
        ours: the scale of the run.
        instead: what else could be given in place of the file.
    """
    theirs = scale_of(meta).name
    if theirs != ours:
        raise UserError(
            f"{path}: was trained with --data.scale {theirs}, this run has {ours}; use {theirs} here, or {instead}"
        )


def scale_of(meta: Meta) -> PixelScale:
    """What the images of a network were scaled by; files of before a scale existed do not have its field."""
    floor, clip = meta.get("log_floor"), meta.get("clip")
    return PixelScale(
        None if floor is None else tuple(floor),
        None if clip is None else tuple((low, high) for low, high in clip),
    )


def normalization_of(meta: Meta) -> Normalization:
    """Mean and deviation of each channel, as in `Stats`, and the scale that they are of."""
    return tuple(meta["mean"]), tuple(meta["std"]), scale_of(meta)


def described(mean: Sequence[float], std: Sequence[float], scale: PixelScale = LINEAR) -> str:
    """A normalization in words."""
    return f"mean {_numbers(mean)}, std {_numbers(std)}{scale.words()}"


def _check_normalization(path: Path, meta: Meta, stats: Stats) -> None:
    mean, std, scale = normalization_of(meta)
    shift = np.abs(np.subtract(mean, stats.mean)) / stats.std
    stretch = np.abs(np.divide(std, stats.std) - 1)
    both = zip(scale.limits, stats.scale.limits, stats.std, strict=False)
    ends = [np.abs(np.subtract(theirs, ours)).max() / one for theirs, ours, one in both]
    if max(*shift, *stretch, *ends) > TOLERANCE:
        theirs, ours = described(mean, std, scale), described(stats.mean, stats.std, stats.scale)
        raise UserError(
            f"{path}: was trained on images normalized by {theirs}, this data has {ours};"
            " use a teacher trained on this data, or train it here (--teacher-train.steps)"
        )


def find_metadata(path: Path, pretrained: bool = False) -> Meta | None:
    """The metadata of a checkpoint that describes its network; None for other files of weights.

    Args:
        path: the file.
        pretrained: take those of a pre-trained backbone, too, which say how images were normalized, but not "model".
    """
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        meta = read_meta(path)
    except UserError:  # a file of another program
        return None
    return meta if "model" in meta or (pretrained and "pretrained" in meta) else None


def require_metadata(path: Path) -> Meta:
    """The metadata of a checkpoint that describes its network.

    Raises:
        UserError: the file is missing, or does not describe its network.
    """
    meta = find_metadata(path)
    if meta is None:
        raise UserError(
            f"{path}: is not a checkpoint that describes its network; give best.safetensors of a run's teacher folder"
        )
    return meta


def network_from(path: Path, data: PreparedData) -> nn.Module:
    """Build the network of a checkpoint and load its weights.

    Raises:
        UserError: the file is missing or does not describe its network, the network is a user's own, or it does not fit
            the data (see `check_metadata`).
    """
    meta = require_metadata(path)
    check_metadata(path, meta, data)
    outputs, channels = data.task.outputs, len(data.splits.channels)
    network = build_network(num_outputs=outputs, in_channels=channels, **options_of(path, meta))
    load_network(network, path)
    return network


def options_of(path: Path, meta: Meta) -> dict[str, Any]:
    """The options of `build_network`, besides channels and outputs, for the network of a checkpoint.

    Raises:
        UserError: it is a user's own.
    """
    if is_own(meta["model"]["arch"]):
        raise UserError(
            f"{path}: is of a network of your own, {meta['model']['arch']}, and a file never makes a run import"
            " code; give it as --teacher.arch with --teacher.weights"
        )
    options = dict(meta["model"])
    options["depths"] = tuple(options.get("depths", unrecorded_depths(options["arch"])))
    return options


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
