"""Whether the networks of a run get finer outputs: chosen from the labels where `ModelConfig.detail` is open."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from deploy.heartbeat import working
from distill.config import ModelConfig, RunConfig
from distill.data.splits import Splits
from distill.data.structures import Ceiling, Structures
from distill.run_folder import stored_settings
from distill.tasks.task import TrainingTask
from distill.training.checkpoint_metadata import find_metadata
from distill.training.log import say
from student.zoo import build_network, finer_outputs
from teacher.external.own_network import check_own, is_own

MOST_LOSS, LEAST_IOU = 0.03, 0.8
"""Mean IoU that a network's own stride may cost, and IoU that it must allow for each class."""
MOST_LOSS_FINER, LEAST_IOU_FINER = 0.1, 0.5
"""The same of its finer strides: finer ones still take twice the time, and a network stays below what labels allow."""
MOST_NAMED = 4
"""Number of classes that a line names."""
PROBE = 64
"""Side of the image with which the stride of a network is found."""


class Form(NamedTuple):
    """A network with one of the output strides that it can have."""

    stride: float
    options: Mapping[str, Any]
    """Fields of `ModelConfig` that give it."""


def with_detail(config: RunConfig, splits: Splits, task: TrainingTask) -> tuple[RunConfig, list[str]]:
    """Decide on the output strides of teacher and student where `detail` is open, and say what the strides allow.

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
    names = ["teacher", "student"] if config.builds_teacher else ["student"]
    decided = _decided_before(config)
    with working("structures of the labels", say):
        structures = None if decided else task.structures(config.data, splits)
    lines: list[str] = []
    strides: dict[float, list[str]] = {}
    switches: dict[float, list[str]] = {}
    for name in ("teacher", "student"):
        model: ModelConfig = getattr(config, name)
        is_open = model.detail is None
        if is_open:
            model = _in_form(model, decided.get(name) or _form_of_weights(model))
        if name in names and structures is not None:
            forms = forms_of(model, len(splits.channels), task.outputs, config.data.size)
            chosen = forms[0]
            if model.detail is None:
                chosen = recommended(structures, forms)
                lines += choice_lines(name, model.arch, structures, forms)
                model = replace(model, **chosen.options)
            strides.setdefault(chosen.stride, []).append(f"{name} {model.arch}")
            finer = [_switch(name, form) for form in forms if form.stride < chosen.stride]
            switches.setdefault(chosen.stride, []).extend(finer)
        config = replace(config, **{name: replace(model, detail=bool(model.detail))})
    if structures is not None:
        for stride, networks in strides.items():
            lines += stride_warnings(structures, " and ".join(networks), stride, switches[stride])
        lines += size_warnings(structures, config.data.size)
    return config, lines


def recommended(structures: Structures, forms: Sequence[Form]) -> Form:
    """The coarsest form whose stride costs little enough, or else the finest.

    The network's own stride costs too much if its ceiling is more than `MOST_LOSS` below 1 in mean IoU, or below
    `LEAST_IOU` for a class; a finer one, if it is beyond `MOST_LOSS_FINER` or `LEAST_IOU_FINER`.

    Args:
        structures: of the training labels at network scale.
        forms: of the network, from coarse to fine.
    """
    own, *finer = forms
    if _suffices(structures.ceiling(own.stride), MOST_LOSS, LEAST_IOU):
        return own
    limits = (MOST_LOSS_FINER, LEAST_IOU_FINER)
    return next((form for form in finer if _suffices(structures.ceiling(form.stride), *limits)), forms[-1])


def forms_of(
    model: ModelConfig, channels: int, outputs: int, size: tuple[int, int] = (PROBE, PROBE)
) -> list[Form]:
    """The forms of a network as it is configured and finer, from coarse to fine; strides are found on the meta device.

    Args:
        model: the network.
        channels: channels of the image.
        outputs: output maps.
        size: height and width of the run's images, for a network that takes no others.

    Raises:
        UserError: as `build_network` does, or a network of the user's own fails on an image of this size.
    """
    forms = [Form(_stride(model, channels, outputs, size), {"detail": bool(model.detail)})]
    for options in finer_outputs(model.arch):
        fields = {"detail": False, **options}
        stride = _stride(replace(model, **fields), channels, outputs, size)
        if stride < forms[-1].stride:
            forms.append(Form(stride, fields))
    return forms


def choice_lines(name: str, arch: str, structures: Structures, forms: Sequence[Form]) -> Iterator[str]:
    """One line that says what was chosen and why; none for a network without a choice.

    Args:
        name: "teacher" or "student".
        arch: its network.
        structures: of the labels.
        forms: of the network, from coarse to fine.
    """
    coarse = forms[0].stride
    ceiling = structures.ceiling(coarse)
    if len(forms) == 1 or ceiling is None:
        return
    allows = f"stride {coarse:g} allows about {ceiling.miou:.0%} mIoU on these labels"
    chosen = recommended(structures, forms)
    if chosen is forms[0]:
        finer = " or ".join(f"{_switch(name, form)} for {form.stride:g}" for form in forms[1:])
        yield f"detail: {name} {arch} keeps its stride: {allows}; {finer}"
        return
    limits = _some(_limited(structures, ceiling))
    others = [_switch(name, form) for form in forms[1:] if form.stride > chosen.stride]
    keeps = "".join(f", {switch} is between" for switch in others)
    reason = f"{allows}{limits}; --{name}.no-detail keeps it{keeps}"
    yield f"detail: {name} {arch} gets outputs at stride {chosen.stride:g}: {reason}"


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


def _suffices(ceiling: Ceiling | None, most_loss: float, least_iou: float) -> bool:
    if ceiling is None:
        return True
    return ceiling.miou >= 1 - most_loss and all(iou is None or iou >= least_iou for iou in ceiling.iou)


def _limited(structures: Structures, ceiling: Ceiling) -> list[tuple[float, str]]:
    """IoU and name of the classes for which a stride allows less than `LEAST_IOU`, the smallest first."""
    pairs = zip(ceiling.iou, structures.classes, strict=True)
    return sorted((iou, it.name) for iou, it in pairs if iou is not None and iou < LEAST_IOU)


def _some(limited: list[tuple[float, str]], start: str = ", ") -> str:
    """The first classes with their IoU, after `start`; empty without any."""
    named = [f"{name} {iou:.0%}" for iou, name in limited[:MOST_NAMED]]
    more = [f"{len(limited) - MOST_NAMED} more"] if len(limited) > MOST_NAMED else []
    return f"{start}{', '.join([*named, *more])}" if named else ""


def _switch(name: str, form: Form) -> str:
    """The option on the command line that gives a network this form."""
    stride = form.options.get("output_stride")
    return f"--{name}.detail" if stride is None else f"--{name}.output-stride {stride}"


def _stride(model: ModelConfig, channels: int, outputs: int, size: tuple[int, int]) -> float:
    fields = ("output_stride", "head_channels", "dropout", "head")
    options = {"detail": bool(model.detail), **{field: getattr(model, field) for field in fields}}
    square = (PROBE, PROBE)
    try:
        return _stride_on(torch.device("meta"), square, model.arch, channels, outputs, options)
    except Exception:  # networks that read values while they run; a user's own may raise anything
        cpu = torch.device("cpu")
        return _stride_on(cpu, size if is_own(model.arch) else square, model.arch, channels, outputs, options)


@torch.no_grad()
def _stride_on(
    device: torch.device,
    size: tuple[int, int],
    arch: str,
    channels: int,
    outputs: int,
    options: Mapping[str, Any],
) -> float:
    with device:
        network = build_network(arch, channels, outputs, aux=False, **options).eval()
        if is_own(arch) and device.type == "cpu":
            check_own(arch, network, channels, outputs, [size], training=False)
        return size[1] / network(torch.zeros(1, channels, *size)).logits.shape[-1]


def _in_form(model: ModelConfig, form: Mapping[str, Any] | None) -> ModelConfig:
    """The network as it was decided or trained: its `detail`, and its output stride where that is a choice as well."""
    if form is None:
        return model
    chosen = {"detail": bool(form.get("detail", False))}
    stride = form.get("output_stride")
    if stride and any(options.get("output_stride") == stride for options in finer_outputs(model.arch)):
        chosen["output_stride"] = stride
    return replace(model, **chosen)


def _decided_before(config: RunConfig) -> dict[str, Mapping[str, Any]]:
    """What a run that is resumed has decided, by network."""
    stored = stored_settings(config)
    fields = ("detail", "output_stride")
    found = {name: {one: stored.get(f"{name}.{one}") for one in fields} for name in ("teacher", "student")}
    return {name: form for name, form in found.items() if isinstance(form["detail"], bool)}


def _form_of_weights(model: ModelConfig) -> Mapping[str, Any] | None:
    """The form of the network in a checkpoint; None if there is none, or another file of weights."""
    metadata = find_metadata(model.weights) if model.weights is not None else None
    return None if metadata is None else metadata["model"]
