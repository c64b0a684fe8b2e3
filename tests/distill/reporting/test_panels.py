"""Panels stand side by side."""

import numpy as np

from distill.reporting.panels import GAP, side_by_side


def test_pictures_of_several_heights_stand_side_by_side():
    dark = [np.zeros((height, 3, 3), np.uint8) for height in (2, 5)]
    joined = side_by_side(dark)
    assert joined.shape == (5, 3 + GAP + 3 + GAP, 3)
    assert not joined[:2, :3].any()
    assert not joined[:, 3 + GAP : -GAP].any()
    assert (joined[2:, :3] == 255).all()
    assert (joined[:, -GAP:] == 255).all()
