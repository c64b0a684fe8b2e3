"""Palettes, overlays with their legend, and pictures of inputs of any channels."""

import numpy as np
import pytest

from deploy.bundle.manifest import ClassInfo
from deploy.visualize import colorize, overlay, palette, render, shares
from tests.deploy.tiny import CLASSES, make_image


def test_palette_is_stable_and_distinct():
    colors = palette(200)
    assert palette(7) == colors[:7]
    assert len(set(colors)) == 200
    assert min(max(color) for color in colors) > 100
    first = np.array(colors[:12], float)
    distances = np.linalg.norm(first[:, None] - first[None], axis=2) + 1e9 * np.eye(12)
    assert distances.min() > 40


def test_colorize():
    colors = colorize(np.array([[0, 2], [3, 255]], np.uint8), CLASSES["rgb"])
    np.testing.assert_array_equal(colors, [[(200, 30, 30), (30, 30, 200)], [(0, 0, 0), (0, 0, 0)]])


def test_shares_leave_out_what_is_no_class():
    labels = np.array([[0, 0, 0, 1], [255, 255, 7, 255]], np.uint8)
    np.testing.assert_array_equal(shares(labels, 3), [0.75, 0.25, 0])
    np.testing.assert_array_equal(shares(np.full((2, 2), 255, np.uint8), 3), [0, 0, 0])


def test_overlay_blends_classes_and_leaves_the_rest():
    image = np.full((60, 80, 3), 100, np.uint8)
    labels = np.zeros((60, 80), np.uint8)
    labels[30:] = 255
    plain = overlay(image, labels, CLASSES["rgb"], legend=False)
    np.testing.assert_array_equal(plain[0, 0], (150, 65, 65))
    np.testing.assert_array_equal(plain[30:], image[30:])
    sheet = overlay(image, labels, CLASSES["rgb"])
    assert sheet.shape[1] > 80
    np.testing.assert_array_equal(sheet[:60, :80], plain)
    panel = sheet[:, 80:].reshape(-1, 3)
    assert (panel == (200, 30, 30)).all(1).any()
    assert not (panel == (30, 200, 30)).all(1).any()  # no green in the picture, none in the legend
    assert (image == 100).all()


def test_legend_may_be_longer_than_a_small_picture():
    classes = tuple(ClassInfo(f"class {i}", color) for i, color in enumerate(palette(20)))
    labels = np.arange(400, dtype=np.uint8).reshape(20, 20) % 20
    sheet = overlay(np.zeros((20, 20, 3), np.uint8), labels, classes)
    assert sheet.shape[0] > 20 * 15


def test_render_of_other_inputs():
    rgb = make_image()
    np.testing.assert_array_equal(render(rgb), rgb)
    gray = render(rgb[..., :1])
    assert gray.shape == (32, 48, 3)
    np.testing.assert_array_equal(gray, rgb[..., [0, 0, 0]])
    sar = np.zeros((10, 100, 2), np.float32)
    sar[..., 0] = np.linspace(-30, 0, 100)
    sar[0, 50:] = np.nan
    shown = render(sar)
    assert (shown[0, 50:] == 0).all()
    assert (shown[5, :2] == 0).all()
    assert (shown[5, -2:] == 255).all()
    assert (np.diff(shown[5, :, 0].astype(int)) >= 0).all()
    assert (render(np.full((4, 4, 2), np.nan, np.float32)) == 0).all()
    assert (render(np.full((4, 4, 2), -9.0, np.float32)) == 0).all()


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_overlay_blends_by_opacity(channels):
    image = make_image(size=(40, 50))[..., :channels]
    labels = np.random.default_rng(0).integers(0, 4, (40, 50)).astype(np.uint8)
    labels[labels == 3] = 255
    kept = labels.copy()
    picture = render(image)
    for opacity in (0.0, 0.3, 0.5, 1.0):
        blended = overlay(image, labels, CLASSES["rgb"], legend=False, opacity=opacity)
        expected = (1 - opacity) * picture + opacity * colorize(labels, CLASSES["rgb"])
        assert np.abs(blended - expected)[labels != 255].max() <= 2
        np.testing.assert_array_equal(blended[labels == 255], picture[labels == 255])
    np.testing.assert_array_equal(labels, kept)
