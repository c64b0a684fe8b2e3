"""Published PSPNets as networks of this project: of hszhao/semseg and of OpenMMLab's MMSegmentation.

Both build the network of `teacher.pspnet` with other tensor names. What shapes do not show (`align_corners`, the
dilation of first blocks, the output stride) is not decided here.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from deploy.errors import UserError

Project = Literal["semseg", "MMSegmentation"]

MARKS: Mapping[Project, tuple[str, ...]] = {
    "semseg": ("layer0.0.weight", "cls.0.weight"),
    "MMSegmentation": ("decode_head.conv_seg.weight",),
}
"""Tensors by whose names the files of a project are recognized."""

OTHERS = {
    "segmentation_head.0.weight": "segmentation_models_pytorch",
    "aux_classifier.4.weight": "torchvision",
}
"""The same for packages, whose files `teacher.external.package_files` reads."""

Rules = Sequence[tuple[str, str]]
"""The beginning of a tensor's name as a regular expression, and its replacement. The first that matches holds."""

SEMSEG: Rules = (
    (r"layer([1-4])\.", r"backbone.layer\1."),
    (r"ppm\.features\.(\d)\.1\.", r"pyramid.branches.\1.0."),
    (r"ppm\.features\.(\d)\.2\.", r"pyramid.branches.\1.1."),
    (r"cls\.([01])\.", r"head.\1."),
    (r"cls\.4\.", "classifier."),
    (r"aux\.([014])\.", r"aux_head.\1."),
)
SEMSEG_STEMS: Mapping[bool, Rules] = {
    True: ((r"layer0\.([01346])\.", r"backbone.conv1.\1."), (r"layer0\.7\.", "backbone.bn1.")),
    False: ((r"layer0\.0\.", "backbone.conv1."), (r"layer0\.1\.", "backbone.bn1.")),
}
"""The first layers, whether they are three 3×3 convolutions (a deep stem) or one of 7×7."""
MMSEG: Rules = (
    (r"backbone\.stem\.([01346])\.", r"backbone.conv1.\1."),
    (r"backbone\.stem\.7\.", "backbone.bn1."),
    (r"backbone\.(conv1|bn1|layer[1-4])\.", r"backbone.\1."),
    (r"decode_head\.psp_modules\.(\d)\.1\.conv\.", r"pyramid.branches.\1.0."),
    (r"decode_head\.psp_modules\.(\d)\.1\.bn\.", r"pyramid.branches.\1.1."),
    (r"decode_head\.bottleneck\.conv\.", "head.0."),
    (r"decode_head\.bottleneck\.bn\.", "head.1."),
    (r"decode_head\.conv_seg\.", "classifier."),
    (r"auxiliary_head\.convs\.0\.conv\.", "aux_head.0."),
    (r"auxiliary_head\.convs\.0\.bn\.", "aux_head.1."),
    (r"auxiliary_head\.conv_seg\.", "aux_head.4."),
)

DEPTHS = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}
"""Layers of a ResNet by the number of bottleneck blocks in each of its stages."""
STEMS = {None: "", 32: "c", 64: "s"}
"""Ending of timm's name of a ResNet by the width of the first of three 3×3 convolutions; None = one of 7×7."""
COUNTERS = "num_batches_tracked"
"""Ending of the tensors in which batch norms count batches; inference does not use them, and old files lack them."""


@dataclass(frozen=True)
class Published:
    """The tensors of a published network and what they show of it."""

    project: Project
    backbone: str
    """timm name."""
    outputs: int
    head_channels: int
    aux: bool
    """Whether it has its auxiliary head."""
    tensors: Mapping[str, Tensor]
    """By the names of this project."""
    original: Mapping[str, str]
    """The name in the file of each of them."""


def project_of(names: Collection[str]) -> Project | None:
    """The project whose PSPNet has tensors of these names, without a prefix `module.`; None if it is neither."""
    return next((project for project, marks in MARKS.items() if all(m in names for m in marks)), None)


def other_package(names: Collection[str]) -> str | None:
    """The package whose whole network has tensors of these names, which differ from those here; None if none has."""
    return next((package for mark, package in OTHERS.items() if mark in names), None)


def read_published(state: Mapping[str, Tensor], source: str) -> Published:
    """Rename the tensors of a published PSPNet.

    Args:
        state: tensors by the names of their project.
        source: names the file in messages.

    Raises:
        UserError: it is neither project's PSPNet on a ResNet of bottleneck blocks, or a tensor has no counterpart.
    """
    project = project_of(state)
    if project is None:
        raise UserError(f"{source}: holds no PSPNet of semseg or MMSegmentation; give the file of one")
    rules = MMSEG if project == "MMSegmentation" else (*SEMSEG, *SEMSEG_STEMS["layer0.6.weight" in state])
    original = {new: name for name in state if (new := _renamed(name, rules)) is not None}
    unused = [name for name in state if original.get(_renamed(name, rules) or "") != name]
    backbone = _backbone(original, state, source)
    if unused:
        raise UserError(
            f"{source}: {len(unused)} tensors have no place in a PSPNet, first {unused[0]}; give the file of another"
            " network, or remove them from it"
        )
    for name in ("head.0.weight", "classifier.weight"):
        if name not in original or state[original[name]].ndim != 4:
            raise UserError(f"{source}: the tensor for {name} is missing; give the file of a PSPNet")
    tensors = {new: state[name] for new, name in original.items()}
    return Published(
        project,
        backbone,
        outputs=len(tensors["classifier.weight"]),
        head_channels=len(tensors["head.0.weight"]),
        aux=any(name.startswith("aux_head.") for name in tensors),
        tensors=tensors,
        original=original,
    )


def load_published(network: nn.Module, published: Published, source: str) -> int:
    """Load a published network's tensors into one built for them.

    Args:
        network: a `teacher.pspnet.PSPNet` with the backbone, outputs and heads that `published` names.
        published: the tensors.
        source: names the file in messages.

    Returns:
        The number of tensors that were loaded. Only counters of batches may be missing in the file.

    Raises:
        UserError: a tensor is missing, has another shape, has no place in the network, or is not finite.
    """
    wanted, given = network.state_dict(), published.tensors
    missing = [name for name in wanted if name not in given and not name.endswith(COUNTERS)]
    if missing:
        raise UserError(
            f"{source}: {len(missing)} tensors of {published.backbone} are missing, first {missing[0]};"
            " give a whole file"
        )
    for name, value in given.items():
        theirs = published.original[name]
        if name not in wanted:
            raise UserError(f"{source}: {theirs} has no place in a PSPNet on {published.backbone}")
        if value.shape != wanted[name].shape:
            shapes = f"{tuple(value.shape)}, not {tuple(wanted[name].shape)}"
            raise UserError(
                f"{source}: {theirs} has the shape {shapes} as in a PSPNet on {published.backbone}"
            )
        if not torch.isfinite(value).all():
            raise UserError(f"{source}: {theirs} holds values that are not finite; get the file again")
    network.load_state_dict(given, strict=False)
    return len(given)


def _renamed(name: str, rules: Rules) -> str | None:
    for pattern, replacement in rules:
        new, count = re.subn(f"^{pattern}", replacement, name)
        if count:
            return new
    return None


def _backbone(names: Iterable[str], state: Mapping[str, Tensor], source: str) -> str:
    """timm's name of the ResNet whose tensors, by the names of this project, these are."""
    blocks = dict.fromkeys(range(1, 5), 0)
    for name in names:
        if match := re.match(r"backbone\.layer(\d)\.(\d+)\.conv3\.", name):
            blocks[int(match[1])] = max(blocks[int(match[1])], int(match[2]) + 1)
    depth = DEPTHS.get((blocks[1], blocks[2], blocks[3], blocks[4]))
    if depth is None:
        found = ", ".join(map(str, blocks.values()))
        raise UserError(
            f"{source}: its backbone has {found} bottleneck blocks; a ResNet50, 101 or 152 can be converted"
        )
    shortcut = next((t for name, t in state.items() if name.endswith("layer1.0.downsample.1.weight")), None)
    if shortcut is not None and shortcut.ndim == 4:
        raise UserError(
            f"{source}: its shortcuts pool (ResNetV1d); only ResNet, ResNetV1b and ResNetV1c can be converted"
        )
    deep = next((state[n] for n in ("layer0.0.weight", "backbone.stem.0.weight") if n in state), None)
    width = len(deep) if deep is not None and deep.shape[-1] == 3 else None
    if width not in STEMS:
        raise UserError(f"{source}: its first convolution has {width} channels; 32 or 64 can be converted")
    return f"resnet{depth}{STEMS[width]}"
