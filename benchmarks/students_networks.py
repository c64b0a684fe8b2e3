"""The networks that `benchmarks/students.py` compares, exported and quantized."""

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor, nn

from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError
from deploy.quantize.calibrators import CALIBRATORS
from deploy.quantize.qdq import cpu_form, insert, layers
from deploy.quantize.ranges import collect
from distill.export.parity import device_form
from distill.export.to_onnx import export_onnx
from student.device import folded
from student.zoo import build_network, count_macs, count_parameters
from teacher.pspnet import Output

OPSET = 20
SETTLING = 3
"""Batches of noise that set the statistics of batch norms, so that activations have sensible ranges."""


@dataclass(frozen=True)
class Candidate:
    """A network to time, untrained."""

    name: str
    network: nn.Module

    @property
    def parameters(self) -> int:
        """Parameters as deployed."""
        return count_parameters(folded(self.network))

    def macs(self, size: int) -> int:
        """Multiply-accumulates of a square image, as deployed where that can be counted."""
        return count_macs(folded(self.network), 3, (size, size))


class Peer(nn.Module):
    """A network of another package, which returns logits or a dictionary with them under "out"."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Output:
        found = self.network(x)
        return Output(found["out"] if isinstance(found, dict) else found, None)


def candidates(names: Sequence[str], classes: int, peers: bool) -> list[Candidate]:
    """The students of these names, and the peers if wanted, with settled batch norms.

    Raises:
        UserError: no such network, or an option that cannot be read.
    """
    found = {name: _student(name, classes) for name in names}
    if peers:
        found |= _peers(classes)
    return [Candidate(name, _settled(network)) for name, network in found.items()]


def models_of(candidate: Candidate, spec: InputSpec) -> dict[str, bytes]:
    """The network as ONNX files in fp32 and, for CPUs, in INT8."""
    model = export_onnx(device_form(candidate.network, spec, fold=True), OPSET)
    tensors = list(dict.fromkeys(tensor for layer in layers(model) for tensor in layer.tensors))
    rng = np.random.default_rng(0)
    shape, valid = (1, spec.height, spec.width, len(spec.channels)), np.ones((spec.height, spec.width), bool)
    noise = [(rng.integers(0, 256, shape, np.uint8), valid) for _ in range(2)]
    ranges = {name: CALIBRATORS["min-max"](one) for name, one in collect(model, tensors, noise).items()}
    return {"fp32": model, "int8": cpu_form(insert(model, ranges))}


def _student(name: str, classes: int) -> nn.Module:
    arch, _, text = name.partition(":")
    options = {}
    for part in filter(None, text.split(",")):
        key, _, value = part.partition("=")
        try:
            options[key] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            raise UserError(f"{name}: write options as key=value, such as detail=True") from None
    return build_network(arch, 3, classes, **options)


def _peers(classes: int) -> dict[str, nn.Module]:
    """Networks that users compare with; those whose package is missing are left out."""
    found: dict[str, nn.Module] = {}
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large  # start-up time

    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes)
    found["torchvision LR-ASPP-MobileNetV3-L"] = Peer(network)
    if find_spec("segmentation_models_pytorch"):
        import segmentation_models_pytorch as smp  # optional dependency

        plus = smp.DeepLabV3Plus("mobilenet_v2", encoder_weights=None, classes=classes)
        found["SMP DeepLabV3+-MobileNetV2"] = Peer(plus)
        found["SMP U-Net-ResNet18"] = Peer(smp.Unet("resnet18", encoder_weights=None, classes=classes))
    return found


@torch.no_grad()
def _settled(network: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    network.train()
    for _ in range(SETTLING):
        network(torch.randn(2, 3, 160, 160))
    return network.eval()
