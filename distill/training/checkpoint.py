"""Checkpoints: one safetensors file each, written atomically, with checksums over its tensors and over its metadata.

To resume, a training needs only tensors and a few numbers; learning rate, data order and random numbers are functions
of the step, so they are not stored.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from deploy.errors import UserError
from deploy.files.atomic import atomic_write
from distill.training.distributed import by_main

Meta = dict[str, Any]
"""JSON values by name."""

REMEDY = "delete its folder to train this stage again"


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], meta: Meta) -> None:
    """Write `tensors` and the JSON-serializable `meta` to `path`; after a crash the old or the new file is complete."""
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    text = json.dumps(meta)
    header = {"meta": text, "meta_sha256": _text_digest(text), "sha256": digest(kept)}
    with atomic_write(path) as file:
        file.write(save(kept, header))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], Meta]:
    """Read the tensors and `meta` of a checkpoint.

    Raises:
        UserError: the file is missing, truncated or altered.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged checkpoint ({error}); {REMEDY}") from error
    if header.get("sha256") != digest(tensors):
        raise UserError(f"{path}: checksum mismatch, the file was damaged; {REMEDY}")
    return tensors, _meta_of(path, header)


def read_meta(path: Path) -> Meta:
    """Read the `meta` of a checkpoint without its tensors.

    Raises:
        UserError: the file is missing, damaged, or not a checkpoint.
    """
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged checkpoint ({error}); {REMEDY}") from error
    return _meta_of(path, header)


def _meta_of(path: Path, header: Mapping[str, str]) -> Meta:
    """The metadata in the header of a checkpoint; those of earlier versions have no checksum of their own."""
    text = header.get("meta", "")
    if header.get("meta_sha256", _text_digest(text)) != _text_digest(text):
        raise UserError(f"{path}: checksum mismatch, the file was damaged; {REMEDY}")
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged checkpoint ({error}); {REMEDY}") from error
    if not isinstance(meta, dict):
        raise UserError(f"{path}: damaged checkpoint (no metadata); {REMEDY}")
    return meta


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def pack(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Prefix every name in `state` with `prefix.`."""
    return {f"{prefix}.{name}": tensor for name, tensor in state.items()}


def unpack(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that `pack` stored under `prefix`, by their original names."""
    return {
        name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{prefix}.")
    }


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as flat tensors named `<parameter index>.<slot>`."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{slot}": value
        for index, slots in state.items()
        for slot, value in slots.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load the tensors of `optimizer_tensors` into `optimizer`, whose hyperparameters do not change.

    The state of a parameter gets the memory format of the parameter (such as channels last), which files do not record.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, slot = name.partition(".")
        state.setdefault(int(index), {})[slot] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, slots in optimizer.state.items():
        for slot, value in slots.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                slots[slot] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def load_network(network: nn.Module, path: Path, accelerator: Accelerator | None = None) -> Meta:
    """Load the `model.` tensors of a checkpoint into `network`, strictly.

    Args:
        network: to be changed in place.
        path: of the checkpoint.
        accelerator: its main process reads the file for all, which all must call; None = this process reads it.

    Returns:
        The `meta` of the checkpoint.

    Raises:
        UserError: the checkpoint cannot be read, or holds another network.
    """
    read = partial(load_checkpoint, path)
    tensors, meta = read() if accelerator is None else by_main(read, accelerator)
    try:
        network.load_state_dict(unpack("model", tensors))
    except RuntimeError as error:
        raise UserError(f"{path}: holds another network; {REMEDY}") from error
    return meta


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of CPU tensors, in hexadecimal."""
    sha256 = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        sha256.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        sha256.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()
