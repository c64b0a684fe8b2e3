"""What a checkpoint of MMSegmentation tells about its network in words: classes, and the text of its configuration.

The text is Python that is parsed and never run. Values that it leaves out are the defaults of MMSegmentation's classes
(`ResNet`, `PSPHead`), not of this project.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploy.errors import UserError

STRIDES = {
    ((1, 2, 1, 1), (1, 1, 2, 4)): 8,
    ((1, 2, 2, 1), (1, 1, 1, 2)): 16,
    ((1, 2, 2, 2), (1, 1, 1, 1)): 32,
}
"""Output stride by the strides and dilations of a ResNet's stages."""


@dataclass(frozen=True)
class Described:
    """What a checkpoint says of its network; None = nothing."""

    classes: tuple[str, ...] | None = None
    output_stride: int | None = None
    align_corners: bool | None = None
    contract_dilation: bool | None = None
    mean: tuple[float, ...] | None = None
    """Of the channels R G B in 0..255."""
    std: tuple[float, ...] | None = None


def described(content: object, source: str) -> Described:
    """Read what a checkpoint says of its network.

    Args:
        content: of the file, as `teacher.weights.read_file` returns it.
        source: names the file in messages.

    Raises:
        UserError: the network differs from a PSPNet of this project in a way that shapes do not show.
    """
    meta = content.get("meta") if isinstance(content, dict) else None
    if not isinstance(meta, dict):
        return Described()
    dataset = meta.get("dataset_meta")
    names = dataset.get("classes") if isinstance(dataset, dict) else meta.get("CLASSES")
    listed = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    text = meta.get("cfg") or meta.get("config")
    config = parse_config(text) if isinstance(text, str) else {}
    classes = tuple(names) if listed and names else None
    return _of_config(config, classes, source)


def parse_config(text: str) -> dict[str, Any]:
    """The literal values that a configuration assigns at its top level; empty if it is not Python."""
    try:
        body = ast.parse(text).body
        values: dict[str, Any] = {}
        for node in body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                values[node.targets[0].id] = _value(node.value, values)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return {}
    return values


def _of_config(config: Mapping[str, Any], classes: tuple[str, ...] | None, source: str) -> Described:
    model = config.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("backbone"), dict):
        return Described(classes)
    backbone, head = model["backbone"], model.get("decode_head")
    head = head if isinstance(head, dict) else {}
    bins = _tuple(head.get("pool_scales", (1, 2, 3, 6)))
    for what, differs in (
        ("style 'caffe'", backbone.get("style", "pytorch") != "pytorch"),
        ("multi_grid", backbone.get("multi_grid") is not None),
        (f"pool_scales {bins}", bins != (1, 2, 3, 6)),
    ):
        if differs:
            raise UserError(f"{source}: was built with {what}, which a PSPNet of this project does not have")
    stages = _tuple(backbone.get("strides", (1, 2, 2, 2))), _tuple(backbone.get("dilations", (1, 1, 1, 1)))
    if (output_stride := STRIDES.get(stages)) is None:
        raise UserError(
            f"{source}: was built with strides {stages[0]} and dilations {stages[1]}; those of output strides 8, 16 and"
            " 32 can be converted"
        )
    mean, std = _normalization(config, model, source)
    return Described(
        classes,
        output_stride,
        bool(head.get("align_corners", False)),
        bool(backbone.get("contract_dilation", False)),
        mean,
        std,
    )


def _normalization(
    config: Mapping[str, Any], model: Mapping[str, Any], source: str
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and deviation in version 1 (`data_preprocessor`) or 0 (`img_norm_cfg`)."""
    places = (model.get("data_preprocessor"), config.get("data_preprocessor"), config.get("img_norm_cfg"))
    found = next((place for place in places if isinstance(place, dict) and "mean" in place), None)
    if found is None:
        return None, None
    if not found.get("bgr_to_rgb", found.get("to_rgb", False)):
        raise UserError(f"{source}: its images had the channels B G R, which is not converted")
    return _numbers(found["mean"]), _numbers(found.get("std"))


def _numbers(values: object) -> tuple[float, ...] | None:
    if not isinstance(values, list | tuple) or not all(isinstance(v, int | float) for v in values):
        return None
    return tuple(float(value) for value in values)


def _tuple(values: object) -> tuple[Any, ...]:
    """A list or tuple of integers as a tuple; empty for anything else."""
    whole = isinstance(values, list | tuple) and all(isinstance(value, int) for value in values)
    return tuple(values) if whole else ()  # pyright: ignore[reportArgumentType]


def _value(node: ast.AST, known: Mapping[str, Any]) -> Any:
    """A literal, `dict(…)` or a name assigned before; None for anything else."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.List | ast.Tuple):
        values = [_value(item, known) for item in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    if isinstance(node, ast.Dict):
        return {_value(k, known): _value(v, known) for k, v in zip(node.keys, node.values, strict=True) if k}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {keyword.arg: _value(keyword.value, known) for keyword in node.keywords}
    return None
