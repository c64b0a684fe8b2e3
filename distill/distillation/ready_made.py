"""Teachers that are used as they were made elsewhere: each with its own normalization, classes and size.

They are a bundle or an ONNX file (`--teacher.bundle`), a checkpoint for other classes (`--teacher.weights` with
`--teacher.classes`), a published network of torchvision or transformers with its own head (`--teacher.pretrained`
with `--teacher.classes`, or with no steps), or a network of the user's own (with `--teacher.classes`, or with
`--teacher.mean` and `--teacher.std`). A run takes their scores as they are and has no training of the teacher.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from deploy.errors import UserError
from deploy.files.atomic import sha256_file
from distill.config import ModelConfig, RunConfig
from distill.data.datasets.pairs import RGB_CHANNELS
from distill.data.splits import Splits
from distill.data.stats import Stats
from distill.distillation.class_map import lines_of, read_class_map, same_classes, written_classes
from distill.distillation.ready_teacher import Pixels, ReadyTeacher
from distill.training.checkpoint import load_network
from distill.training.checkpoint_metadata import find_metadata, options_of, require_metadata, scale_of
from student.zoo import build_network
from teacher.external.exported import Exported, open_exported
from teacher.external.exported_network import ExportedNetwork
from teacher.external.hf_files import hf_origin, read_config
from teacher.external.hf_networks import kind_of
from teacher.external.origin import Origin, check_logits, noise
from teacher.external.own_network import check_own, is_own
from teacher.external.torchvision_networks import torchvision_origin
from teacher.weights import RGB, is_backbone_of, load_weights, read_state

DIGITS = 12
USUAL = (("normalize", "set"), ("scale", "linear"))
"""Fields of `DataConfig` by which images keep raw units until they are normalized as the teacher's."""


@dataclass(frozen=True)
class Found:
    """A teacher before it is fitted to a run."""

    network: nn.Module
    source: str
    own: Pixels | None
    fill: tuple[float, ...]
    names: tuple[str, ...]
    """Of its classes; empty where only their number is known."""
    outputs: int


def ready_teacher(config: RunConfig, splits: Splits, stats: Stats | None = None) -> ReadyTeacher:
    """Open the teacher of a run for which `config.ready_made` is true.

    Args:
        config: of the run.
        splits: the data set.
        stats: the run's normalization; None before it is known, when scores do not matter yet.

    Raises:
        UserError: it cannot be opened, is for other channels or of another task, its normalization is not known, or it
            has other classes than the data and `--teacher.classes` does not say which are which.
    """
    model, count = config.teacher, len(splits.channels)
    found = _found(config, splits, stats)
    ours = [info.name for info in splits.classes]
    if model.classes is not None:
        classes = read_class_map(model.classes, found.names, found.outputs, ours)
    else:
        classes = same_classes(found.source, found.names, found.outputs, ours)
    run = Pixels((0.0,) * count, (1.0,) * count) if stats is None else Pixels(stats.mean, stats.std)
    return ReadyTeacher(found.network, found.source, run, found.own, found.fill, classes)


def check_ready(config: RunConfig, splits: Splits) -> ReadyTeacher:
    """`ready_teacher`, which has also been run on an image of each size that it will be asked for.

    Raises:
        UserError: as `ready_teacher`, or it fails on them or returns probabilities.
    """
    teacher = ready_teacher(config, splits).eval()
    sizes, channels = {config.augment.crop, config.data.size}, len(splits.channels)
    if _is_own(config.teacher):
        outputs = len(teacher.classes.targets)
        check_own(config.teacher.arch, teacher.network, channels, outputs, sizes, training=False)
        return teacher
    for size in sizes:
        with torch.no_grad():
            check_logits(teacher.source, teacher.network(noise((1, channels, *size))).logits)
    return teacher


def ready_lines(config: RunConfig, splits: Splits, teacher: ReadyTeacher) -> list[str]:
    """What a run says of its teacher besides its name."""
    lines = lines_of(teacher.classes, [info.name for info in splits.classes])
    exported = teacher.network.exported if isinstance(teacher.network, ExportedNetwork) else None
    if exported is None or exported.size is None or exported.tiles or exported.size == config.data.size:
        return lines
    (height, width), (own_height, own_width) = config.data.size, exported.size
    return [
        *lines,
        f"note: images are enlarged or shrunk from {height}×{width} to the teacher's {own_height}×{own_width}; it"
        f" teaches at its best with --data.size {own_height} {own_width}",
    ]


def digest_of_teacher(config: RunConfig) -> str:
    """What a resumed run compares: SHA-256 of the teacher's files, and the map of the classes; "" without them."""
    if not config.ready_made:
        return ""
    if config.teacher.bundle is not None:
        parts = [open_exported(config.teacher.bundle).sha256]
    elif config.teacher.weights is not None:
        parts = [sha256_file(config.teacher.weights)]
    else:
        folder = _folder_of(config.teacher.arch)
        files = [] if folder is None else sorted(file for file in folder.iterdir() if file.is_file())
        parts = [sha256_file(file) for file in files]
    if config.teacher.classes is not None:
        parts.append(config.teacher.classes.read_text(encoding="utf-8"))
    return " ".join(parts)


def name_of_teacher(config: RunConfig) -> str:
    """The teacher of a run for the provenance of what it teaches: no path, but what tells it from others."""
    if config.ready_made and config.teacher.bundle is not None:
        exported = open_exported(config.teacher.bundle)
        return f"{exported.source.name}, SHA-256 {exported.sha256}"
    if config.ready_made and config.teacher.weights is not None:
        weights, arch = config.teacher.weights, config.teacher.arch
        return f"{arch if is_own(arch) else require_metadata(weights)['model']['arch']}, {weights.name}"
    return without_path(config.teacher.arch)


def without_path(arch: str) -> str:
    """The name of a network; of one in a folder, that of the folder alone."""
    folder = _folder_of(arch)
    return arch if folder is None else f"hf/{folder.name}"


def _folder_of(arch: str) -> Path | None:
    """The folder of a network of transformers that lies in one."""
    family, _, name = arch.partition("/")
    folder = Path(name).expanduser()
    return folder if family == "hf" and folder.is_dir() else None


def _label(exported: Exported) -> str:
    return f"{exported.source.name}, SHA-256 {exported.sha256[:DIGITS]}…"


def _found(config: RunConfig, splits: Splits, stats: Stats | None) -> Found:
    for field, usual in USUAL:
        if (asked := getattr(config.data, field)) != usual:
            raise UserError(
                f"--data.{field} {asked}: does not go with a teacher that is used as it is, which needs pixels in their"
                f" own units; use {usual}"
            )
    if config.teacher.bundle is not None:
        return _exported(config, open_exported(config.teacher.bundle), splits, stats)
    weights = config.teacher.weights
    if _is_own(config.teacher) and (weights is None or find_metadata(weights) is None):
        return _own(config.teacher, splits)
    if weights is not None:
        return _checkpoint(config.teacher, weights, splits)
    return _published(config.teacher, splits)


def _exported(config: RunConfig, exported: Exported, splits: Splits, stats: Stats | None) -> Found:
    source, model, names = str(exported.source), config.teacher, splits.channels
    _check_channels(source, exported.channels or names[: exported.in_channels], exported.in_channels, names)
    if exported.uint8 and not splits.optical:
        raise UserError(f"{source}: takes uint8 pixels, the data has others; give a teacher for float32")
    if exported.size is not None and config.data.resize == "tile" and not exported.tiles:
        raise UserError(
            f"{source}: sees whole images resized to {exported.size[0]}×{exported.size[1]}, and this run cuts them"
            " (--data.resize tile); give a teacher that tiles, too, or --data.resize stretch"
        )
    own = _own_normalization(model, exported, source)
    mean = exported.mean or (stats.mean if stats is not None else (0.0,) * exported.in_channels)
    fill = mean if own is None else (0.0,) * exported.in_channels
    network = ExportedNetwork(exported, config.data.size, fill)
    return Found(network, _label(exported), own, fill, exported.classes, exported.outputs)


def _own_normalization(model: ModelConfig, exported: Exported, source: str) -> Pixels | None:
    """How images of a file are normalized; None if it takes raw units."""
    given = bool(model.mean) or bool(model.std)
    if exported.mean or exported.uint8:
        if given:
            raise UserError(
                f"--teacher.mean, --teacher.std: {source} normalizes its images itself; leave them out"
            )
        return None
    return _given_normalization(model, exported.in_channels, source)


def _given_normalization(model: ModelConfig, count: int, source: str) -> Pixels:
    if len(model.mean) != count or len(model.std) != count:
        raise UserError(
            f"{source}: does not say how its images are normalized; give --teacher.mean and --teacher.std with {count}"
            " numbers each in the units of the images (means of 0 and deviations of 1 if the file normalizes itself,"
            " 0 and 255 if it takes 0..1)"
        )
    return Pixels(model.mean, model.std)


def _checkpoint(model: ModelConfig, path: Path, splits: Splits) -> Found:
    meta = require_metadata(path)
    _check_channels(str(path), meta["channels"], len(meta["channels"]), splits.channels)
    fields = {"normalize": meta.get("normalize", "set"), "scale": scale_of(meta).name}
    for field, usual in USUAL:
        if (has := fields[field]) != usual:
            raise UserError(f"{path}: was trained with --data.{field} {has}; a teacher needs {usual} here")
    names, mean, std = (tuple(meta[key]) for key in ("classes", "mean", "std"))
    if model.mean or model.std:
        raise UserError(f"--teacher.mean, --teacher.std: {path} has its own normalization; leave them out")
    own = {"arch": model.arch, "pretrained": model.pretrained}
    options = own if is_own(model.arch) else options_of(path, meta)
    network = build_network(num_outputs=len(names), in_channels=len(splits.channels), **options)
    load_network(network, path)
    return _of_torch(network, f"{options['arch']}, {path.name}", names, mean, std)


def _is_own(model: ModelConfig) -> bool:
    return model.bundle is None and is_own(model.arch)


def _own(model: ModelConfig, splits: Splits) -> Found:
    """A network of the user's own whose weights, loaded by itself or from a file, say nothing of themselves."""
    count, source = len(splits.channels), model.arch
    own = _given_normalization(model, count, source)
    outputs = len(splits.classes if model.classes is None else written_classes(model.classes))
    network = build_network(model.arch, count, outputs, pretrained=model.pretrained)
    if model.weights is not None:
        if is_backbone_of(network, read_state(model.weights)):
            raise UserError(f"{model.weights}: holds a backbone alone; give weights of the whole network")
        load_weights(network, model.weights, count)
        source += f", {model.weights.name}"
    return Found(network, source, own, (0.0,) * count, (), outputs)


def _published(model: ModelConfig, splits: Splits) -> Found:
    origin = _origin(model)
    _check_channels(origin.source, _photo_channels(splits.channels), RGB, splits.channels)
    if not splits.optical:
        raise UserError(f"{origin.source}: takes photos with pixels of 0..255, the data has others")
    if len(origin.mean) != RGB or len(origin.std) != RGB:
        raise UserError(
            f"{origin.source}: does not say how its images are normalized (it has no preprocessor_config.json); add it"
        )
    options: dict[str, Any] = {"pretrained": True, "aux": False}
    network = build_network(model.arch, RGB, len(origin.classes), **options)
    if new := getattr(network, "new_tensors", ()):
        raise UserError(
            f"{origin.source}: its weights have no head ({len(new)} tensors are new, first {new[0]}), so it cannot be"
            " used as it is; train it here (--teacher.pretrained with --teacher-train.steps)"
        )
    return _of_torch(network, without_path(model.arch), origin.classes, origin.mean, origin.std)


def _origin(model: ModelConfig) -> Origin:
    family, _, name = model.arch.partition("/")
    if not model.pretrained or family not in ("hf", "torchvision"):
        raise UserError(
            "--teacher.classes: is for a teacher that is used as it is; give it with --teacher.bundle, with"
            " --teacher.weights, or with --teacher.pretrained and --teacher.arch hf/… or torchvision/…"
        )
    if family == "torchvision":
        return torchvision_origin(name)
    if kind_of(name, read_config(name)[1]) == "backbone":
        raise UserError(
            f"hf/{name}: is a backbone, whose head must be trained here (--teacher-train.steps, no --teacher.classes)"
        )
    return hf_origin(name)


def _of_torch(
    network: nn.Module, source: str, names: tuple[str, ...], mean: tuple[float, ...], std: tuple[float, ...]
) -> Found:
    return Found(network, source, Pixels(mean, std), (0.0,) * len(mean), names, len(names))


def _photo_channels(names: Sequence[str]) -> Sequence[str]:
    """What a network of photos takes: these channels, if they may be red, green and blue, else those."""
    words = [name.lower() for name in names]
    unnamed = all(word.startswith("band_") for word in words)
    return names if unnamed or words in (["r", "g", "b"], ["red", "green", "blue"]) else RGB_CHANNELS


def _check_channels(source: str, theirs: Sequence[str], count: int, ours: Sequence[str]) -> None:
    if tuple(theirs) != tuple(ours) or count != len(ours):
        listed = f" ({', '.join(theirs)})" if len(theirs) == count else ""
        raise UserError(
            f"{source}: takes images of {count} channels{listed}, the data has {len(ours)} ({', '.join(ours)});"
            " give a teacher for these"
        )
