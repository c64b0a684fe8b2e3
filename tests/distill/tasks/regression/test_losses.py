"""Losses of a map: gradients, parity with torch, zero where nothing is valid, and unchanged when an image is tiled."""

import pytest
import torch
from torch.nn import functional as F

from distill.losses.expression import parse_terms
from distill.losses.task_loss import task_loss
from distill.tasks.regression.losses import LOSSES, l1, mse, smooth_l1


def scene(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(2, 1, 3, 4, generator=generator, dtype=dtype)
    target = torch.randn(2, 6, 8, generator=generator, dtype=dtype)
    return maps, target, torch.rand(2, 6, 8, generator=generator) < 0.7


@pytest.mark.parametrize("loss", [smooth_l1, l1, mse])
def test_gradients(loss):
    maps, target, valid = scene()
    assert torch.autograd.gradcheck(lambda x: loss(x, target, valid), maps.requires_grad_())


@pytest.mark.parametrize(
    ("loss", "torchs"), [(smooth_l1, F.smooth_l1_loss), (l1, F.l1_loss), (mse, F.mse_loss)]
)
def test_they_are_torchs_over_valid_pixels(loss, torchs):
    maps, target, valid = scene(1)
    full = F.interpolate(maps, (6, 8), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(loss(maps, target, valid), torchs(full[valid], target[valid]))


@pytest.mark.parametrize("name", LOSSES)
def test_void_pixels_and_perfect_maps(name):
    _, target, valid = scene(2)
    loss, maps = LOSSES[name].function, target[:, None].clone().requires_grad_()
    spoiled = torch.where(valid, target, torch.nan)
    assert loss(maps, spoiled, valid) == 0
    nothing = loss(maps, spoiled, torch.zeros_like(valid))
    nothing.backward()
    assert nothing == 0
    assert maps.grad is not None
    assert (maps.grad == 0).all()


def test_tiling_changes_nothing():
    _, target, valid = scene(3)
    maps = torch.randn(2, 1, 6, 8, dtype=torch.float64)
    whole = task_loss(parse_terms("smooth_l1 + 0.5*mse", LOSSES), LOSSES, maps, target, valid)
    halves = [(part[..., :4], part[..., 4:]) for part in (maps, target, valid)]
    tiled = [torch.cat(pair) for pair in halves]
    torch.testing.assert_close(task_loss(parse_terms("smooth_l1 + 0.5*mse", LOSSES), LOSSES, *tiled), whole)
