"""The networks that `benchmarks/students.py` compares, exported and quantized."""

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
from deploy.tasks.grasp.geometry import MAPS
from distill.selection.untrained import untrained_models
from distill.tasks.grasp import grasp_head
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


def grasp_candidates(names: Sequence[str]) -> list[Candidate]:
    """The same for the four maps of grasps in depth images; quality is a logit, as the loss `bce` trains it."""
    head = partial(grasp_head, quality="sigmoid")
    return [Candidate(name, settled(_student(name, 1, len(MAPS))), head) for name in names]


def network_of(name: str, classes: int) -> nn.Module:
    """A new network for color images: a peer's name (`benchmarks.peer_networks`), or a student's, maybe with options.

    Raises:
        UserError: no such network, an option that cannot be read, or a peer whose package is not installed.
    """
    if name in PEERS:
        return build_peer(name, classes)
    return _student(name, 3, classes)


def _student(name: str, channels: int, outputs: int) -> nn.Module:
    """A new student from its name, with options behind a colon."""
    (arch, options), *others = members_named(name)
    if others:
        raise UserError(f"{name}: is a family; name its members, such as {arch}")
    return build_network(arch, channels, outputs, **options)


def models_of(candidate: Candidate, spec: InputSpec) -> dict[str, bytes]:
    """The network as ONNX files in fp32 and, for CPUs, in INT8."""
    model, int8 = exported(candidate, spec)
    return {"fp32": model, "int8": cpu_form(int8)}


def exported(candidate: Candidate, spec: InputSpec) -> tuple[bytes, bytes]:
    """The network as ONNX files in fp32 and, for TensorRT, in INT8."""
    return untrained_models(candidate.network, spec, candidate.head, ranges=partial(_ranges_of_noise, spec))


def _ranges_of_noise(spec: InputSpec, model: bytes, tensors: Sequence[str]) -> dict[str, float]:
    """Largest magnitudes for two images of noise, so that both precisions predict alike."""
    valid = np.ones((spec.height, spec.width), bool)
    noise = [(noise_image(spec, seed)[None], valid) for seed in range(2)]
    return {name: CALIBRATORS["min-max"](one) for name, one in collect(model, tensors, noise).items()}


def noise_image(spec: InputSpec, seed: int) -> np.ndarray:
    """An image of noise as the network takes it: uint8 H×W×C, or float32 C×H×W of about the mean and deviation."""
    rng, channels = np.random.default_rng(seed), len(spec.channels)
    if spec.layout == "NHWC":
        return rng.integers(0, 256, (spec.height, spec.width, channels), np.uint8)
    mean, std = (np.reshape(values, (-1, 1, 1)) for values in (spec.mean, spec.std))
    return (mean + std * rng.standard_normal((channels, spec.height, spec.width))).astype(np.float32)


@torch.no_grad()
def settled(network: nn.Module) -> nn.Module:
    """The network in evaluation mode, with statistics of noise in its batch norms."""
    torch.manual_seed(0)
    network.train()
    for _ in range(SETTLING):
        network(torch.randn(2, channels_of(network), 160, 160))
    return network.eval()
