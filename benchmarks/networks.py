"""Networks of this package and of others by name, untrained: built, exported and quantized, to be timed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from benchmarks.peer_networks import PEERS, build_peer
from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError
from deploy.quantize.calibrators import CALIBRATORS
from deploy.quantize.qdq import cpu_form
from deploy.quantize.ranges import collect
from distill.export_config import ExportConfig
from distill.selection.untrained import untrained_models
from distill.tasks.segmentation import argmax_head
from distill.tasks.task import Head
from student.candidates import members_named
from student.device import folded
from student.zoo import build_network, channels_of, count_macs

SETTLING = 3
"""Batches of noise that set the statistics of batch norms, so that activations have sensible ranges."""


@dataclass(frozen=True)
class Candidate:
    """A network to time, untrained."""

    name: str
    network: nn.Module
    head: Head = argmax_head
    """What the task makes of the outputs."""

    @property
    def parameters(self) -> int:
        """Parameters as deployed: without auxiliary heads."""
        named = folded(self.network).named_parameters()
        return sum(p.numel() for name, p in named if "aux_head" not in name.split("."))

    def macs(self, size: int) -> int:
        """Multiply-accumulates of a square image, as deployed where that can be counted."""
        return count_macs(folded(self.network), channels_of(self.network), (size, size))


def candidates(names: Sequence[str], classes: int) -> list[Candidate]:
    """The networks of these names, with new weights and settled batch norms.

    Raises:
        UserError: no such network, an option that cannot be read, or a peer whose package is not installed.
    """
    return [Candidate(name, settled(network_of(name, classes))) for name in names]


def network_of(name: str, classes: int) -> nn.Module:
    """A new network for color images: a peer's name (`benchmarks.peer_networks`), or a student's, maybe with options.

    Raises:
        UserError: no such network, an option that cannot be read, or a peer whose package is not installed.
    """
    if name in PEERS:
        return build_peer(name, classes)
    (arch, options), *others = members_named(name)
    if others:
        raise UserError(f"{name}: is a family; name its members, such as {arch}")
    return build_network(arch, 3, classes, **options)


def color_spec(size: int) -> InputSpec:
    """The input of a network for square color images."""
    return InputSpec(("R", "G", "B"), size, size, "uint8", "NHWC", mean=(120.0,) * 3, std=(60.0,) * 3)


def models_of(candidate: Candidate, spec: InputSpec, *, fold: bool = True) -> dict[str, bytes]:
    """The network as ONNX files in fp32 and, for CPUs, in INT8."""
    model, int8 = exported(candidate, spec, fold=fold)
    return {"fp32": model, "int8": cpu_form(int8)}


def exported(candidate: Candidate, spec: InputSpec, *, fold: bool = True) -> tuple[bytes, bytes]:
    """The network as ONNX files in fp32 and, for TensorRT, in INT8.

    Args:
        candidate: the network.
        spec: its input.
        fold: see `ExportConfig.fold`.
    """
    ranges = partial(_ranges_of_noise, spec)
    return untrained_models(candidate.network, spec, candidate.head, ExportConfig(fold=fold), ranges)


def _ranges_of_noise(spec: InputSpec, model: bytes, tensors: Sequence[str]) -> dict[str, float]:
    """Largest magnitudes for two images of noise, so that both precisions predict alike."""
    valid = np.ones((spec.height, spec.width), bool)
    noise = [(noise_image(spec, seed)[None], valid) for seed in range(2)]
    return {name: CALIBRATORS["min-max"](one) for name, one in collect(model, tensors, noise).items()}


def noise_image(spec: InputSpec, seed: int) -> np.ndarray:
    """A color image of noise as the network takes it, uint8 H×W×3."""
    shape = (spec.height, spec.width, len(spec.channels))
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@torch.no_grad()
def settled(network: nn.Module) -> nn.Module:
    """The network in evaluation mode, with statistics of noise in its batch norms."""
    torch.manual_seed(0)
    network.train()
    for _ in range(SETTLING):
        network(torch.randn(2, channels_of(network), 160, 160))
    return network.eval()
