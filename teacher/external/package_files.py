"""Weights of whole networks of torchvision and segmentation_models_pytorch, as networks of this project."""

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn

from deploy.errors import UserError
from deploy.files.json_files import one_line, read_json
from teacher.external.origin import IMAGENET_MEAN, IMAGENET_STD, require
from teacher.external.smp_networks import SmpNetwork
from teacher.external.torchvision_networks import TorchvisionNetwork, torchvision_origin
from teacher.published import COUNTERS

Package = Literal["torchvision", "segmentation_models_pytorch"]
MARKS: Mapping[str, Package] = {
    "classifier.4.weight": "torchvision",
    "classifier.low_classifier.weight": "torchvision",
    "segmentation_head.0.weight": "segmentation_models_pytorch",
}
"""Tensors by whose names the files of a package are recognized; the first axis of each has the classes."""
SMP_CONFIG, SMP_WEIGHTS = "config.json", "model.safetensors"
SMP_RENAMED = {"encoder.": "backbone.", "segmentation_head.0.": "classifier."}
SMP_LEFT_OUT = "classification_head."
SMP_FREE = (
    "encoder_name",
    "encoder_weights",
    "in_channels",
    "classes",
    "activation",
    "upsampling",
    "aux_params",
)
"""Options of SMP's networks that do not change the scores, or that shapes show."""
SMP_IMAGENET = (
    "resnet",
    "resnext",
    "se_res",
    "densenet",
    "vgg",
    "mobilenet_v2",
    "efficientnet-",
    "mit_b",
    "mobileone",
)
"""Beginnings of names of SMP's own encoders whose weights have ImageNet's usual normalization."""
VOC_CLASSES = 21


@dataclass(frozen=True)
class PackagedNetwork:
    """A network of a package with its weights."""

    package: Package
    arch: str
    network: nn.Module
    outputs: int
    aux: bool
    """Whether it has its auxiliary head."""
    count: int
    """Tensors that were loaded."""
    left_out: int
    """Tensors of a head that classifies whole images."""
    mean: tuple[float, ...] | None
    """Of R, G and B in 0..255 by which its images were normalized; None where it is not known."""
    std: tuple[float, ...] | None
    classes: tuple[str, ...] | None


def package_of(names: Collection[str]) -> Package | None:
    """The package whose networks have tensors of these names; None if it is neither."""
    return next((package for mark, package in MARKS.items() if mark in names), None)


def smp_source(path: Path) -> tuple[Path, str | None]:
    """The weights in a folder that SMP's `save_pretrained` has written, and its network's name here.

    Args:
        path: the folder, or a file of weights, whose name is not known.

    Raises:
        UserError: the folder holds something else, or a network that is built in another way than by default.
    """
    if not path.is_dir():
        return path, None
    try:
        config = read_json(path / SMP_CONFIG, dict[str, Any])
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path / SMP_CONFIG}: cannot be read ({one_line(error)}); give a folder that save_pretrained has written"
        ) from error
    smp = require("segmentation_models_pytorch", "smp", str(path))
    known = {each.__name__: each for each in smp.MODEL_ARCHITECTURES_MAPPING.values()}
    name = config.get("_model_class")
    if name not in known or not isinstance(config.get("encoder_name"), str):
        raise UserError(f"{path / SMP_CONFIG}: names no network of SMP; give its name by --arch smp/…")
    usual = {key: one.default for key, one in inspect.signature(known[name].__init__).parameters.items()}
    for key, value in config.items():
        plain = list(usual[key]) if key in usual and isinstance(usual[key], tuple) else usual.get(key)
        free = key in SMP_FREE or key.startswith("_") or "dropout" in key or key not in usual
        if not free and value != plain:
            raise UserError(
                f"{path / SMP_CONFIG}: {key} is {value}, and smp/{name}/… is built with {plain}; it cannot be converted"
            )
    return path / SMP_WEIGHTS, f"smp/{name}/{config['encoder_name']}"


def read_packaged(state: Mapping[str, Tensor], arch: str | None, source: str) -> PackagedNetwork:
    """Build the network of a file and load all of its tensors.

    Args:
        state: tensors by the names of the package.
        arch: the network's name, `smp/<Architecture>/<encoder>` or `torchvision/<name>`; None finds torchvision's by
            its tensors.
        source: names the file in messages.

    Raises:
        UserError: it is of neither package, it is of SMP and `arch` does not say which network, or tensors are missing,
            left over, of another shape or not finite.
    """
    package = package_of(state)
    outputs = next((len(state[mark]) for mark in MARKS if mark in state), 0)
    if package is None:
        raise UserError(f"{source}: holds no network of torchvision or segmentation_models_pytorch")
    if bad := next((name for name, value in state.items() if not torch.isfinite(value).all()), None):
        raise UserError(f"{source}: {bad} holds values that are not finite; get the file again")
    if package == "torchvision":
        return _torchvision(state, arch, outputs, source)
    return _smp(state, arch, outputs, source)


def misfits(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """What tensors lack, have too much, or have in other shapes, with the first name of each; empty if they fit."""
    missing = [name for name in wanted if name not in given and not name.endswith(COUNTERS)]
    unknown = [name for name in given if name not in wanted]
    shapes = [name for name in given if name in wanted and given[name].shape != wanted[name].shape]
    found = [("missing", missing), ("unexpected", unknown), ("of another shape", shapes)]
    return [f"{len(names)} {what} (first {names[0]})" for what, names in found if names]


def _torchvision(state: Mapping[str, Tensor], arch: str | None, outputs: int, source: str) -> PackagedNetwork:
    tensors = {_without(name, "aux_classifier.", "aux_head."): value for name, value in state.items()}
    aux = any(name.startswith("aux_head.") for name in tensors)
    name = _torchvision_name(arch, source) or _fitting(tensors, outputs, aux)
    network = TorchvisionNetwork(name, 3, outputs, aux=aux)
    _load(network, tensors, f"torchvision/{name}", source)
    origin = torchvision_origin(name)
    classes = origin.classes if outputs == VOC_CLASSES else None
    return PackagedNetwork(
        "torchvision",
        f"torchvision/{name}",
        network,
        outputs,
        aux,
        len(tensors),
        0,
        origin.mean,
        origin.std,
        classes,
    )


def _fitting(tensors: Mapping[str, Tensor], outputs: int, aux: bool) -> str:
    """The network of torchvision that these tensors fit, or else fit best."""
    models = require("torchvision", "train", "torchvision/<name>").models
    found: dict[str, int] = {}
    for name in models.list_models(module=models.segmentation):
        with torch.device("meta"):
            wanted = TorchvisionNetwork(name, 3, outputs, aux=aux).state_dict()
        same = {key for key, value in wanted.items() if key in tensors and tensors[key].shape == value.shape}
        found[name] = len(tensors.keys() ^ same) + len(wanted.keys() - same)
    return min(found, key=lambda name: found[name])


def _smp(state: Mapping[str, Tensor], arch: str | None, outputs: int, source: str) -> PackagedNetwork:
    if arch is None or not arch.startswith("smp/"):
        raise UserError(
            f"{source}: is a network of segmentation_models_pytorch, whose tensors do not say which; give"
            " --arch smp/<Architecture>/<encoder>, such as smp/PSPNet/resnet34"
        )
    left_out = [name for name in state if name.startswith(SMP_LEFT_OUT)]
    tensors = {name: value for name, value in state.items() if name not in left_out}
    for old, new in SMP_RENAMED.items():
        tensors = {_without(name, old, new): value for name, value in tensors.items()}
    name = arch.removeprefix("smp/")
    network = SmpNetwork(name, 3, outputs)
    _load(network, tensors, arch, source)
    mean, std = _smp_normalization(name.partition("/")[2])
    return PackagedNetwork(
        "segmentation_models_pytorch",
        arch,
        network,
        outputs,
        False,
        len(tensors),
        len(left_out),
        mean,
        std,
        None,
    )


def _smp_normalization(encoder: str) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Of the ImageNet weights of an encoder, in 0..255, with which its networks are trained further."""
    if encoder.startswith(SMP_IMAGENET):
        return IMAGENET_MEAN, IMAGENET_STD
    config = timm.get_pretrained_cfg(encoder.removeprefix("tu-")) if encoder.startswith("tu-") else None
    if config is None:
        return None, None
    return tuple(255 * value for value in config.mean), tuple(255 * value for value in config.std)


def _load(network: nn.Module, tensors: Mapping[str, Tensor], arch: str, source: str) -> None:
    if problems := misfits(network.state_dict(), tensors):
        raise UserError(f"{source}: does not fit {arch}: {', '.join(problems)}; nothing is converted")
    network.load_state_dict(tensors, strict=False)


def _torchvision_name(arch: str | None, source: str) -> str | None:
    if arch is not None and not arch.startswith("torchvision/"):
        raise UserError(
            f"--arch {arch}: {source} is a network of torchvision; give torchvision/<name>, or leave it out"
        )
    return None if arch is None else arch.removeprefix("torchvision/")


def _without(name: str, old: str, new: str) -> str:
    return new + name[len(old) :] if name.startswith(old) else name
