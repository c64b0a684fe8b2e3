"""Whether the networks of a run get finer outputs (`ModelConfig.detail`): chosen from the labels where it is open."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from deploy.errors import UserError
from deploy.heartbeat import working
from distill.config import ModelConfig, RunConfig
from distill.data.splits import Splits
from distill.data.structures import Ceiling, Structures
from distill.tasks.task import TrainingTask
from distill.training.checkpoint_metadata import find_metadata
from distill.training.log import say
from student.zoo import build_network, has_option

MOST_LOSS = 0.03
"""Mean IoU that a stride may cost."""
LEAST_IOU = 0.8
"""IoU that a stride must allow for each class."""
MOST_NAMED = 4
"""Number of classes that a line names."""
PROBE = 64
"""Side of the image with which the stride of a network is found."""


class Strides(NamedTuple):
    """The output strides of a network."""

    coarse: float
    fine: float | None
    """With `detail`; None if the network has no such option."""


def with_detail(config: RunConfig, splits: Splits, task: TrainingTask) -> tuple[RunConfig, list[str]]:
    """Decide on `detail` for teacher and student where it is open, and say what the strides allow.

    A run that is resumed keeps what it decided, and weights that describe their network keep its form.

    Args:
        config: configuration of the run.
        splits: the data set.
        task: what the networks are for. For one whose labels are no classes, an open `detail` becomes False.

    Returns:
        The configuration without an open `detail`, and lines to print.

    Raises:
        UserError: no network has the name, or a training image cannot be read.
    """
    names = ["student"] if config.no_teacher else ["teacher", "student"]
    decided = _decided_before(config)
    with working("structures of the labels", say):
        structures = None if decided else task.structures(config.data, splits)
    lines: list[str] = []
    strides: dict[float, list[str]] = {}
    switches: dict[float, list[str]] = {}
    for name in ("teacher", "student"):
        model = getattr(config, name)
        detail = model.detail
        if detail is None:
            detail = decided.get(name, _detail_of_weights(model))
        if name in names and structures is not None:
            both = strides_of(model, len(splits.channels), task.outputs)
            if detail is None:
                detail = recommended_detail(structures, both)
                lines += choice_lines(name, model.arch, structures, both)
            stride = both.fine if detail and both.fine else both.coarse
            strides.setdefault(stride, []).append(f"{name} {model.arch}")
            switches.setdefault(stride, []).extend([f"--{name}.detail"] if both.fine and not detail else [])
        config = replace(config, **{name: replace(model, detail=bool(detail))})
    if structures is not None:
        for stride, networks in strides.items():
            lines += stride_warnings(structures, " and ".join(networks), stride, switches[stride])
        lines += size_warnings(structures, config.data.size)
    return config, lines


def recommended_detail(structures: Structures, strides: Strides) -> bool:
    """Whether a network should have finer outputs: where it can, and its own stride costs too much.

    A stride costs too much if its ceiling is more than `MOST_LOSS` below 1 in mean IoU, or below `LEAST_IOU` for a
    class.

    Args:
        structures: of the training labels at network scale.
        strides: of the network.
    """
    return strides.fine is not None and not _suffices(structures.ceiling(strides.coarse))


def strides_of(model: ModelConfig, channels: int, outputs: int) -> Strides:
    """The output strides of a network, found on the meta device.

    Args:
        model: the network; its `detail` is ignored.
        channels: channels of the image.
        outputs: output maps.

    Raises:
        UserError: as `build_network` does.
    """
    details = (False, True) if has_option(model.arch, "detail") else (False,)
    coarse, *fine = (_stride(model, channels, outputs, detail) for detail in details)
    return Strides(coarse, fine[0] if fine else None)


def choice_lines(name: str, arch: str, structures: Structures, strides: Strides) -> Iterator[str]:
    """One line that says what was chosen and why; none for a network without a choice.

    Args:
        name: "teacher" or "student".
        arch: its network.
        structures: of the labels.
        strides: of the network.
    """
    ceiling = structures.ceiling(strides.coarse)
    if strides.fine is None or ceiling is None:
        return
    allows = f"stride {strides.coarse:g} allows about {ceiling.miou:.0%} mIoU on these labels"
    if recommended_detail(structures, strides):
        reason = f"{allows}{_some(_limited(structures, ceiling))}; --{name}.no-detail keeps it"
        yield f"detail: {name} {arch} gets outputs at stride {strides.fine:g}: {reason}"
    else:
        yield f"detail: {name} {arch} keeps its stride: {allows}; --{name}.detail for {strides.fine:g}"


def stride_warnings(
    structures: Structures, networks: str, stride: float, switches: Sequence[str] = ()
) -> Iterator[str]:
    """A warning where a class is too small for a stride.

    Args:
        structures: of the labels.
        networks: the networks that have the stride, for the message.
        stride: of their outputs.
        switches: options that would give finer outputs.
    """
    ceiling = structures.ceiling(stride)
    limited = [] if ceiling is None else _limited(structures, ceiling)
    if limited:
        yield (
            f"warning: {networks}: outputs at stride {stride:g} cannot draw the smallest structures of some classes"
            f" (IoU at best about{_some(limited, ' ')}); finer: {', '.join([*switches, 'a larger --data.size'])}"
        )


def size_warnings(structures: Structures, size: tuple[int, int]) -> Iterator[str]:
    """A warning where resizing to the network's size loses much of a class.

    Args:
        structures: of the labels.
        size: height and width of the network's input.
    """
    kept = [(it.resized, it.name) for it in structures.classes if it.resized is not None]
    lost = sorted(pair for pair in kept if pair[0] < LEAST_IOU)
    if lost:
        yield (
            f"warning: --data.size {size[0]} {size[1]}: resizing alone costs some classes much (IoU of the labels there"
            f" and back{_some(lost, ' ')}); a larger size, or --data.resize tile, keeps more"
        )


def _suffices(ceiling: Ceiling | None) -> bool:
    if ceiling is None:
        return True
    return ceiling.miou >= 1 - MOST_LOSS and all(iou is None or iou >= LEAST_IOU for iou in ceiling.iou)


def _limited(structures: Structures, ceiling: Ceiling) -> list[tuple[float, str]]:
    """IoU and name of the classes for which a stride allows less than `LEAST_IOU`, the smallest first."""
    pairs = zip(ceiling.iou, structures.classes, strict=True)
    return sorted((iou, it.name) for iou, it in pairs if iou is not None and iou < LEAST_IOU)


def _some(limited: list[tuple[float, str]], start: str = ", ") -> str:
    """The first classes with their IoU, after `start`; empty without any."""
    named = [f"{name} {iou:.0%}" for iou, name in limited[:MOST_NAMED]]
    more = [f"{len(limited) - MOST_NAMED} more"] if len(limited) > MOST_NAMED else []
    return f"{start}{', '.join([*named, *more])}" if named else ""


def _stride(model: ModelConfig, channels: int, outputs: int, detail: bool) -> float:
    options = {"output_stride": model.output_stride, "head_channels": model.head_channels, "detail": detail}
    with torch.device("meta"), torch.no_grad():
        network = build_network(model.arch, channels, outputs, aux=False, dropout=model.dropout, **options)
        return PROBE / network.eval()(torch.empty(1, channels, PROBE, PROBE)).logits.shape[-1]


def _decided_before(config: RunConfig) -> dict[str, bool]:
    """What a run that is resumed has decided, by network."""
    path = config.out / "config.json"
    if not (config.resume and path.exists()):
        return {}
    try:
        stored = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); choose another --out") from error
    found = {name: stored.get(f"{name}.detail") for name in ("teacher", "student")}
    return {name: detail for name, detail in found.items() if isinstance(detail, bool)}


def _detail_of_weights(model: ModelConfig) -> bool | None:
    """The `detail` of the network in a checkpoint; None if there is none, or another file of weights."""
    metadata = find_metadata(model.weights) if model.weights is not None else None
    return None if metadata is None else bool(metadata["model"].get("detail", False))
