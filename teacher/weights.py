"""Reading weights from local files; nothing but tensors is ever unpickled."""

import contextlib
import warnings
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from deploy.errors import UserError
from teacher.published import other_package, project_of

RGB = 3
"""Channels of a first convolution that can be adapted to others."""
CLASSIFIERS = (
    *("fc.", "classifier.", "head.", "head_dist.", "conv_head.", "norm_head.", "bn2.", "norm.", "fc_norm."),
    *("pre_logits.", "final_conv."),
)
"""Name prefixes, in torchvision and timm files, of layers that follow the features and that a backbone lacks."""


def read_file(path: Path) -> object:
    """Read a `.safetensors` file, or a PyTorch file with `weights_only=True`; tensors are on the CPU.

    Raises:
        UserError: the file is missing or damaged, or holds Python objects other than tensors and plain values.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such weights file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old pickle protocols: only whether the file can be read matters
            if path.suffix == ".safetensors":
                return load_file(path)
            return torch.load(path, "cpu", weights_only=True)
    except (
        Exception
    ) as error:  # the unpickler raises whatever the bytes lead to, such as KeyError or IndexError
        if objects := _objects_in(path):
            raise UserError(
                f"{path}: holds Python objects ({', '.join(objects[:3])}), which are never unpickled; save its tensors"
                " alone where you trust it: torch.save(torch.load(OLD, weights_only=False)['state_dict'], NEW)"
            ) from error
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise UserError(f"{path}: not a readable weights file ({reason})") from error


def _objects_in(path: Path) -> list[str]:
    """Types of the Python objects in a PyTorch file, found without unpickling; empty for other files."""
    with contextlib.suppress(Exception), warnings.catch_warnings():  # a damaged file may raise anything
        warnings.simplefilter("ignore")
        return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    return []


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file of weights.

    Args:
        path: as for `read_file`. Tensors may be nested under `state_dict` or `model`.

    Returns:
        Tensors by name, on the CPU, without the prefixes `module.` or `model.`.

    Raises:
        UserError: the file is missing or damaged, or holds more than tensors.
    """
    return tensors_of(read_file(path), path)


def tensors_of(content: object, path: Path) -> dict[str, Tensor]:
    """The tensors by name in what `read_file` has read, as `read_state` returns them.

    Raises:
        UserError: it holds more than tensors.
    """
    state = content
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise UserError(f"{path}: holds more than named tensors; save a state dict")
    if any(name.startswith("model.") for name in state):
        # a checkpoint of edgedistill, which may also hold tensors of the optimizer
        return {name[6:]: value for name, value in state.items() if name.startswith("model.")}
    return {name.removeprefix("module."): value for name, value in state.items()}


def load_weights(network: nn.Module, path: Path, in_channels: int) -> None:
    """Load a weights file into a network.

    Args:
        network: loaded whole, except that an auxiliary head may be missing on either side. If it has a backbone and the
            file holds only a backbone (by the names of timm or torchvision), only the backbone is loaded.
        path: as `read_state` takes it.
        in_channels: channels of the network's images.

    Raises:
        UserError: the file cannot be read, or its tensors do not fit; the message gives the numbers and first names of
            tensors that are missing, unexpected or of another shape. Or it is a published network to be converted.
    """
    wanted = network.state_dict()
    state = _as_wrapped(wanted, read_state(path))
    if project := project_of(state) or other_package(state):
        raise UserError(
            f"{path}: is a network of {project}, whose tensors have other names; convert it first:"
            f" edgedistill convert {path} {path.stem}.safetensors"
        )
    if is_backbone_of(network, state):
        load_backbone_state(network.get_submodule("backbone"), state, in_channels, source=str(path))
        return
    # the auxiliary head is for training only: either side may lack it
    optional = {
        k for k in {*wanted, *state} if k.startswith("aux_head.") and not (k in wanted and k in state)
    }
    state = {k: v for k, v in state.items() if k not in optional}
    _check_classes(wanted, state, str(path))
    _check_match({k: v for k, v in wanted.items() if k not in optional}, state, str(path))
    network.load_state_dict(state, strict=False)


def _as_wrapped(wanted: Mapping[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a user's own network by the names that they have in the module that wraps it (`OwnNetwork`)."""
    for prefix in ("", "network.", "network.model."):  # `tensors_of` has dropped a `model.`
        named = {f"{prefix}{name}": value for name, value in state.items()}
        if wanted.keys() & named.keys():
            return named
    return state


def is_backbone_of(network: nn.Module, names: Iterable[str]) -> bool:
    """Whether tensors of these names are a backbone alone, to be loaded into that of `network`."""
    has_backbone = any(name == "backbone" for name, _ in network.named_children())
    return has_backbone and not any(name.startswith("backbone.") for name in names)


def load_backbone_state(
    backbone: nn.Module, state: Mapping[str, Tensor], in_channels: int, source: str
) -> None:
    """Load an image classifier's tensors into a feature backbone.

    torchvision's ResNets use the same names as timm's. The classifier is dropped.

    Args:
        backbone: a network of `build_backbone`.
        state: the classifier's tensors by name.
        in_channels: channels of the image; first convolutions of three channels are summed or repeated as timm does.
        source: names the weights in messages.

    Raises:
        UserError: the tensors do not fit.
    """
    wanted = backbone.state_dict()
    renamed = {backbone_name(k, wanted) or k: v for k, v in state.items()}
    kept = {k: v for k, v in renamed.items() if not k.startswith(CLASSIFIERS) or k in wanted}
    for name, value in kept.items():
        # a stem such as FastViT's has several
        is_first = name in wanted and value.ndim == wanted[name].ndim == 4
        if is_first and (value.shape[1], wanted[name].shape[1]) == (RGB, in_channels):
            kept[name] = adapt_input_conv(in_channels, value)
    _check_match(wanted, kept, source)
    backbone.load_state_dict(kept, strict=False)


def backbone_name(name: str, wanted: Collection[str]) -> str | None:
    """The name in a feature backbone of a tensor of timm's classifier; None if the backbone lacks it.

    timm wraps networks in one of several ways to return feature maps, and each names tensors in its own way.

    Args:
        name: of the classifier's tensor.
        wanted: names of the backbone's tensors.
    """
    flat = name.replace(".", "_", 1)
    candidates = (name, f"network.model.{name}", f"network.{name}", f"network.{flat}", flat)
    return next((candidate for candidate in candidates if candidate in wanted), None)


def _check_classes(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str) -> None:
    ours, theirs = wanted.get("classifier.bias"), given.get("classifier.bias")
    if ours is not None and theirs is not None and len(ours) != len(theirs):
        raise UserError(
            f"{source}: is for {len(theirs)} classes, the data has {len(ours)}; use weights trained on the same"
            " classes, or map those of a teacher (--teacher.classes)"
        )


def _check_match(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str) -> None:
    missing = [k for k in wanted if k not in given and "num_batches_tracked" not in k]
    unexpected = [k for k in given if k not in wanted]
    shapes = [k for k in given if k in wanted and given[k].shape != wanted[k].shape]
    if shapes:
        k = shapes[0]
        raise UserError(
            f"{source}: {len(shapes)} tensors have another shape, first {k}:"
            f" {tuple(given[k].shape)} in the file, {tuple(wanted[k].shape)} in the network"
        )
    if missing or unexpected:
        raise UserError(
            f"{source}: does not fit the network: {_some('missing', missing)}, {_some('unexpected', unexpected)}"
        )


def _some(word: str, names: list[str]) -> str:
    return f"{len(names)} {word}" + (
        f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else ""
    )
