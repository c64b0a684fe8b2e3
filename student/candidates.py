"""The students that a choice by budget compares: members of one family, and networks written with their options."""

import ast
from collections.abc import Mapping
from typing import Any

from deploy.errors import UserError
from deploy.measure.records import Option
from student.edge import SIZES
from student.zoo import COMMON, STUDENTS

EDGE_WIDTHS = (12, 20, 40)
"""Widths between and above the listed ones."""


def edge_name(width: int) -> str:
    """`edge/<width>`, or the listed name of that width."""
    return next((name for name, listed in SIZES if listed == width), f"edge/{width}")


FAMILIES: Mapping[str, tuple[str, ...]] = {
    "edge": tuple(edge_name(width) for width in sorted({*EDGE_WIDTHS, *(size.width for size in SIZES)})),
    "pspnet": tuple(name for name in STUDENTS if name.startswith("pspnet/")),
    "deeplabv3plus": tuple(name for name in STUDENTS if name.startswith("deeplabv3plus/")),
    "unet": ("unet", "unet-weighted", "unet-wide"),
    "ggcnn": ("ggcnn", "ggcnn2"),
}
"""Members of each family of students. Other networks are alone in theirs."""


def family_of(arch: str) -> tuple[str, ...]:
    """The members of a network's family, with the network itself.

    Args:
        arch: name of the network (see `student.zoo.build_network`), such as `edge-nano`.
    """
    own = canonical(arch)
    members = next((members for members in FAMILIES.values() if own in members), None)
    if members is not None:
        return members
    others = FAMILIES.get(own.partition("/")[0], ()) if "/" in own else ()
    return (*others, own)


def same_family(one: str, other: str) -> bool:
    """Whether two networks are of one family."""
    return not set(family_of(one)).isdisjoint(family_of(other))


def canonical(arch: str) -> str:
    """The one name of a network that has two: `edge-nano` for `edge/16`."""
    family, _, width = arch.partition("/")
    return edge_name(int(width)) if family == "edge" and width.isdecimal() else arch


def members_named(text: str) -> list[tuple[str, dict[str, Option]]]:
    """Networks with their options by a text such as `edge`, `edge-nano` or `pspnet/resnet18:output_stride=16`.

    Args:
        text: a family of `FAMILIES` or a network, and after a colon options of `build_network`, separated by commas.

    Returns:
        The canonical name of each network, and those of its options that differ from `COMMON`.

    Raises:
        UserError: an option is not written as key=value.
    """
    name, _, listed = text.partition(":")
    members = (name,) if name in STUDENTS else FAMILIES.get(name, (name,))
    options = _options(text, listed)
    return [(canonical(member), options) for member in members]


def _options(text: str, listed: str) -> dict[str, Option]:
    try:
        call = ast.parse(f"f({listed})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError
        values: dict[str, Any] = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
    except (SyntaxError, ValueError):
        values = {"": None}
    if not all(name and isinstance(value, Option) for name, value in values.items()):
        raise UserError(f"{text}: write options as key=value, such as detail=True")
    return {name: value for name, value in values.items() if COMMON.get(name) != value}
