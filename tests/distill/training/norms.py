"""Batch norms of all kinds, run on the batch of one process or of several."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional as F

from distill.training.activation_checkpointing import checkpointed
from distill.training.sync_norm import step_norms


class Direct(nn.BatchNorm2d):
    """Calls `torch.batch_norm`, where others call `torch.nn.functional.batch_norm`."""

    def forward(self, input: Tensor) -> Tensor:
        statistics = (self.running_mean, self.running_var, self.training, 0.1, self.eps)
        return torch.batch_norm(input, self.weight, self.bias, *statistics, False)


class Block(nn.Module):
    """A block of a backbone, recomputed by activation checkpointing."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.Sequential(nn.BatchNorm2d(3), nn.Tanh(), nn.BatchNorm2d(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.norms(x)


class Again(nn.Module):
    """Stores no activations for its backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(Block())

    def forward(self, x: Tensor) -> Tensor:
        with checkpointed(self):
            return self.backbone(x)


NORMS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.BatchNorm2d(3),
    "not affine": lambda: nn.BatchNorm2d(3, affine=False),
    "cumulative": lambda: nn.BatchNorm2d(3, momentum=None),
    "untracked": lambda: nn.BatchNorm2d(3, track_running_stats=False),
    "with activation": lambda: BatchNormAct2d(3, act_layer=nn.Hardswish, inplace=False),
    "vectors": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(3)),
    "direct": lambda: Direct(3),
    "computed again": Again,
    "frozen": lambda: nn.BatchNorm2d(3).eval(),
    "two": lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)),
}


def images(name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A batch of 5 images with a mean other than zero, and enough random numbers for any norm."""
    rng = torch.Generator().manual_seed(len(name))
    x = 3 + torch.randn(5, 3, 6, 5, generator=rng, dtype=torch.float64) * torch.rand(
        5, 3, 1, 1, generator=rng
    )
    return x.to(dtype), torch.randn(5, 5000, generator=rng, dtype=torch.float64)


def valid_pixels() -> Tensor:
    """Valid pixels of those images: none of two (the first is one), half of one, all of one, a corner of the last."""
    valid = torch.zeros(5, 6, 5, dtype=torch.bool)
    valid[1, :3] = valid[3] = valid[4, 4:, 2:] = True
    return valid


class Device:
    """The part of an accelerator that norms use."""

    def __init__(self, num_processes: int, device: str = "cpu") -> None:
        self.num_processes, self.device = num_processes, torch.device(device)


def counted(valid: Tensor | None, processes: int = 1) -> AbstractContextManager[None]:
    """The norms of a batch of which only `valid` pixels count."""
    return step_norms(Device(processes), valid is not None, valid)  # pyright: ignore[reportArgumentType]


def results(name: str, part: slice, dtype: torch.dtype) -> dict[str, Tensor]:
    """Output, gradients and running statistics after two steps of a norm on a part of the batch."""
    torch.manual_seed(0)
    norm = NORMS[name]().to(dtype if dtype == torch.float64 else torch.float32)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    x, numbers = (tensor[part] for tensor in images(name, dtype))
    x.requires_grad_(True)
    norm(x)
    y = norm(x)
    (y.flatten(1) * numbers[:, : y[0].numel()].to(y)).sum().backward()
    gradients = {f"gradient {key}": parameter.grad for key, parameter in norm.named_parameters()}
    return {"y": y.detach(), "x": x.grad, **gradients, **dict(norm.named_buffers())}  # pyright: ignore


SPLITS = ((2, torch.float64), (1, torch.float64), (4, torch.float32))
"""Number of images in the first process (the second has the rest), and their dtype."""


def in_process(rank: int) -> list[dict[str, dict[str, Tensor]]]:
    """The results of all norms for each of `SPLITS`; then the same, masked."""
    found = []
    for mask in (False, True):
        for first, dtype in SPLITS:
            part = (slice(None, first), slice(first, None))[rank]
            with counted(valid_pixels()[part] if mask else None, processes=2):
                found.append({name: results(name, part, dtype) for name in NORMS})
    return found


def patches(shape, seed=0):
    """Valid pixels N×H×W in patches, of none of the first image where there are several."""
    noise = torch.rand(shape[0], 1, -(-shape[1] // 8), -(-shape[2] // 8), generator=rng(seed))
    valid = F.interpolate(noise, scale_factor=8)[:, 0, : shape[1], : shape[2]] > 0.5
    valid[0] = len(valid) == 1
    return valid


def rng(seed):
    return torch.Generator().manual_seed(seed)
