"""Weights of classes from their training pixels."""

import numpy as np
import pytest
import torch

from distill.losses.supervised.class_weights import class_weights_of, effective_weights, inverse_weights

PIXELS = (90_000, 9_000, 900)


def test_kinds():
    assert class_weights_of("none", (), PIXELS) is None
    assert class_weights_of("none", (1.0, 2.5, 4.0), PIXELS).tolist() == [1.0, 2.5, 4.0]
    for kind in ("log", "inverse", "effective"):
        weights = class_weights_of(kind, (), PIXELS)
        assert weights.dtype == torch.float32
        assert (weights.diff() > 0).all()


def test_inverse_frequency():
    weights = inverse_weights(PIXELS)
    torch.testing.assert_close(weights * torch.tensor(PIXELS), (weights * torch.tensor(PIXELS))[:1].expand(3))
    assert weights.mean().item() == pytest.approx(1)


def test_effective_number_of_samples():
    """(1 - β^n) / (1 - β), arXiv:1901.05555."""
    beta = 1 - 1 / np.mean(PIXELS)
    inverse = (1 - beta) / (1 - beta ** np.array(PIXELS))
    torch.testing.assert_close(
        effective_weights(PIXELS), torch.tensor(inverse / inverse.mean(), dtype=torch.float32)
    )


def test_effective_numbers_depend_on_shares_alone():
    torch.testing.assert_close(
        effective_weights([1000 * n for n in PIXELS]), effective_weights(PIXELS), rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("weights", [inverse_weights, effective_weights])
@pytest.mark.parametrize("pixels", [(90, 0, 10), (0, 0, 1), (0, 0, 0), (5, 5, 5), (10**10, 1, 0)])
def test_absent_classes_and_extremes(weights, pixels):
    values = weights(pixels)
    assert torch.isfinite(values).all()
    assert (values > 0).all()
    occurs = torch.tensor(pixels) > 0
    assert (values[~occurs] == 1).all()
    if occurs.any():
        assert values[occurs].mean().item() == pytest.approx(1)
