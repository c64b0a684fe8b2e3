"""Weights that a run starts from: what their file says must fit the configuration, and decides the normalization."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from torch import nn

from deploy.errors import UserError
from distill.config import ModelConfig, RunConfig, TrainConfig
from distill.data.splits import Splits
from distill.data.stats import Stats
from distill.training.checkpoint import Meta
from distill.training.checkpoint_metadata import (
    check_scale,
    described,
    find_metadata,
    normalization_of,
)
from teacher.external.own_network import is_own
from teacher.weights import is_backbone_of, read_state

STRUCTURE = ("align_corners", "contract_dilation")
"""Options of a network that the shapes of its tensors do not show. Files of before they existed have the defaults."""
FAR = 5.0
"""Difference of two normalizations from which images are probably in other units: of means, in standard deviations; of
deviations, as a factor."""


def check_initial_weights(config: RunConfig, splits: Splits) -> None:
    """Compare the weights files of teacher and student with the configuration, before anything is written.

    Raises:
        UserError: a network of the same shapes computes something else than that of the file, or the network that
            decides the normalization was trained with another kind of it, on other channels or in another order.
    """
    for name, model, _ in _networks(config):
        meta = None if model.weights is None else find_metadata(model.weights)
        if meta is None:
            continue
        usual = ModelConfig(model.arch)
        for field in STRUCTURE:
            theirs, option = meta["model"].get(field, getattr(usual, field)), field.replace("_", "-")
            if theirs != getattr(model, field):
                flag = f"--{name}.{'' if theirs else 'no-'}{option}"
                raise UserError(f"{model.weights}: was trained with {option} {theirs}; give {flag}")
    for path, meta in _described(config)[:1]:
        _check_images(config, splits, path, meta)


def check_whole(name: str, model: ModelConfig, training: TrainConfig, network: nn.Module) -> None:
    """Check that a network that is used as it is gets all of its weights.

    Args:
        name: "teacher" or "student".
        model: its configuration.
        training: its training.
        network: the network.

    Raises:
        UserError: it is not trained, and has no weights, or its file holds those of a backbone alone.
    """
    if training.steps:
        return
    if model.weights is None:
        own = name == "teacher" and is_own(model.arch)
        loads = ", or --teacher.mean and --teacher.std of one that loads its own weights" if own else ""
        raise UserError(
            f"the {name} has neither steps nor weights; give --{name}.weights or --{name}-train.steps{loads}"
        )
    if is_backbone_of(network, read_state(model.weights)):
        raise UserError(
            f"{model.weights}: holds a backbone alone, and the rest of the {name} is not trained; give"
            f" --{name}-train.steps, or weights of the whole network"
        )


def with_normalization(config: RunConfig, splits: Splits, stats: Stats) -> tuple[Stats, list[str]]:
    """Statistics with the mean and deviation of the teacher's weights file, or of the student's if that has none.

    Teacher, student and export share one normalization, and a network that is used as it is, or continued, needs that
    of its own training. So does a backbone that was pre-trained.

    Args:
        config: configuration of the run.
        splits: the data set.
        stats: of its training split.

    Returns:
        The statistics to normalize by, and lines to print.
    """
    files = _described(config)
    given, lines = _given(*files[0], splits, stats) if files else (stats, [])
    ours = given.mean, given.std, given.scale
    lines += [_other(path, meta) for path, meta in files[1:] if normalization_of(meta) != ours]
    return given, lines + [_unknown(name, path) for name, path in _undescribed(config)]


def _given(path: Path, meta: Meta, splits: Splits, stats: Stats) -> tuple[Stats, list[str]]:
    """Statistics with the mean, deviation and scale of the file that decides, and lines to print."""
    if stats.normalize != "set":
        return stats, [] if meta.get("normalize") == stats.normalize else [_other(path, meta)]
    mean, std, scale = normalization_of(meta)
    if scale.name != stats.scale.name:  # of a pre-trained backbone
        return stats, [_other(path, meta)]
    if tuple(meta["channels"]) != splits.channels:
        names = f"{' '.join(meta['channels'])}, the data has {' '.join(splits.channels)}"
        return stats, [f"normalization: that of the training split, as {path} is for the channels {names}"]
    if (mean, std, scale) == (stats.mean, stats.std, stats.scale):
        return stats, []
    given = replace(stats, mean=mean, std=std, weights=str(path), **asdict(scale))
    split = described(stats.mean, stats.std, stats.scale)
    lines = [f"normalization: {described(mean, std, scale)}, of {path}; the training split has {split}"]
    shift = np.abs(np.subtract(mean, stats.mean)) / np.minimum(std, stats.std)
    factor = np.maximum(np.divide(std, stats.std), np.divide(stats.std, std))
    if max(*shift, *factor) > FAR:
        lines.append(f"warning: the images differ much from those of {path}; are they in the same units?")
    return given, lines


def _networks(config: RunConfig) -> Iterator[tuple[str, ModelConfig, TrainConfig]]:
    """The networks of a run in the order in which they decide the normalization."""
    if config.builds_teacher:
        yield "teacher", config.teacher, config.teacher_train
    yield "student", config.student, config.student_train


def _described(config: RunConfig) -> list[tuple[Path, Meta]]:
    """The weights files that say how images were normalized, and their metadata; the first decides."""
    paths = [model.weights for _, model, _ in _networks(config) if model.weights is not None]
    found = [(path, find_metadata(path, pretrained=True)) for path in paths]
    return [(path, meta) for path, meta in found if meta is not None]


def _other(path: Path, meta: Meta) -> str:
    theirs = described(*normalization_of(meta))
    return f"normalization: {path} was trained with another ({theirs}), and goes on with this run's"


def _undescribed(config: RunConfig) -> Iterator[tuple[str, Path]]:
    """Weights files that do not describe their network, of networks that are used as they are."""
    for name, model, training in _networks(config):
        if model.weights is not None and training.steps == 0 and find_metadata(model.weights) is None:
            yield name, model.weights


def _unknown(name: str, path: Path) -> str:
    return f"warning: {path} does not say how its images were normalized; the {name} gets those of this run's networks"


def _check_images(config: RunConfig, splits: Splits, path: Path, meta: Meta) -> None:
    channels, asked = meta["channels"], list(splits.channels)
    if channels != asked and sorted(channels) == sorted(asked):
        order = " ".join(channels)
        raise UserError(
            f"{path}: was trained with the channels {order}, the data has them as {' '.join(asked)}; give"
            f" --data.channels {order}, or other weights"
        )
    if "pretrained" in meta:  # a backbone can be fine-tuned for another normalization and other channels
        return
    theirs, ours = meta.get("normalize", "set"), config.data.normalize
    if theirs != ours:
        raise UserError(
            f"{path}: was trained with --data.normalize {theirs}, this run has {ours}; use {theirs} here, or other"
            " weights"
        )
    check_scale(path, meta, config.data.scale, "other weights")
    if len(channels) != len(splits.channels):
        raise UserError(
            f"{path}: was trained with {len(channels)} channels ({', '.join(channels)}), the data has"
            f" {len(splits.channels)} ({', '.join(splits.channels)}); choose as many with --data.channels, or other"
            " weights"
        )
