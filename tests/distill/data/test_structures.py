"""Structures of labels, and what score maps of a stride can draw of them."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from deploy.evaluation.segmentation_metrics import SegmentationMetrics
from distill.config import DataConfig
from distill.data import structures
from distill.data.sample import IGNORE, make_sample
from distill.data.structures import STRIDES, component_areas, drawn_at, measure_structures, widths

SIDE = 64


class Masks:
    """A reader of masks with the ids of two classes."""

    def __init__(self, *masks):
        self.masks, self.read = masks, []
        self.ids = [str(number) for number in range(len(masks))]

    def __len__(self):
        return len(self.masks)

    def __getitem__(self, index):
        self.read.append(index)
        mask = self.masks[index]
        return make_sample(mask[..., None], mask, id=str(index), num_classes=2)


def measured(*masks, **config):
    return measure_structures(Masks(*masks), ("ground", "thing"), DataConfig("folder", **config))


def stripe(width, side=SIDE, at=20):
    mask = np.zeros((side, side), np.uint8)
    mask[:, at : at + width] = 1
    return mask


def disc(radius, side=SIDE):
    rows, columns = np.mgrid[:side, :side]
    return ((rows - side // 2) ** 2 + (columns - side // 2) ** 2 <= radius**2).astype(np.uint8)


def scene(side=128):
    """Discs of several sizes and slanted lines of a few pixels, anywhere."""
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[:side, :side]
    mask = np.zeros((side, side), bool)
    for radius in (1, 2, 3, 4, 5, 7, 9):
        row, column = rng.uniform(0, side, 2)
        mask |= np.hypot(rows - row, columns - column) <= radius
    for width in (2, 3, 4, 5):
        angle, place = rng.uniform(0, math.pi), rng.uniform(-side / 4, side / 4)
        away = (rows - side / 2) * math.cos(angle) + (columns - side / 2) * math.sin(angle) - place
        mask |= np.abs(away) <= width / 2
    return mask.astype(np.uint8)


class TestWidths:
    @pytest.mark.parametrize("width", range(1, 9))
    def test_of_a_line_are_its_own_to_half_a_pixel(self, width):
        found = np.median(widths(stripe(width)))
        assert abs(found - width) == 0.5
        assert np.median(widths(stripe(width).T)) == found

    def test_of_a_disc_is_its_diameter(self):
        assert widths(disc(10)).max() == pytest.approx(20, abs=1)

    def test_of_a_diagonal_line(self):
        mask = np.abs(np.subtract.outer(np.arange(SIDE), np.arange(SIDE))) <= 4
        assert np.median(widths(mask.astype(np.uint8))) == pytest.approx(9 / math.sqrt(2), abs=1)

    def test_a_box_has_few_ridge_pixels_off_its_middle(self):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[10:19, 5:60] = 1
        assert np.quantile(widths(mask), 0.1) == 9.5

    def test_without_a_pixel(self):
        assert widths(np.zeros((5, 5), np.uint8)).size == 0


def test_components_touch_at_corners():
    mask = np.array([[1, 0, 0, 0], [0, 1, 0, 1]], np.uint8)
    assert sorted(component_areas(mask)) == [1, 2]


class TestDrawn:
    def test_stride_two_draws_every_pixel(self):
        mask = scene()
        np.testing.assert_array_equal(drawn_at(mask, 2), mask)

    @pytest.mark.parametrize("stride", STRIDES)
    def test_a_single_class(self, stride):
        np.testing.assert_array_equal(drawn_at(np.ones((30, 41), np.uint8), stride), 1)

    def test_thin_things_vanish_and_wide_ones_stay(self):
        assert not drawn_at(stripe(1), 8).any()
        np.testing.assert_array_equal(drawn_at(stripe(16, at=16), 8), stripe(16, at=16))

    def test_invalid_pixels_take_the_classes_around_them(self):
        mask = np.ones((32, 32), np.uint8)
        mask[:, 3:30] = IGNORE
        np.testing.assert_array_equal(drawn_at(mask, 8)[:, :3], 1)
        both = stripe(32, at=32)
        holes = both.copy()
        holes[20:24, 10:14] = IGNORE
        np.testing.assert_array_equal(drawn_at(holes, 4)[holes != IGNORE], both[holes != IGNORE])


class TestMeasured:
    def test_by_hand(self):
        mask = stripe(3)
        mask[:10] = IGNORE
        found = measured(mask, size=(SIDE, SIDE))
        assert found is not None
        assert found.masks == 1
        ground, thing = found.classes
        assert (ground.components, thing.components) == (2, 1)
        assert thing.area == (3 * 54,) * 3
        assert thing.width is not None
        assert thing.width[1] == 3.5
        assert thing.resized == 1

    def test_finer_strides_draw_more(self):
        found = measured(scene(), disc(8, 128), size=(128, 128))
        assert found is not None
        assert [it.stride for it in found.ceilings] == list(STRIDES)
        for finer, coarser in zip(found.ceilings, found.ceilings[1:], strict=False):
            assert finer.miou > coarser.miou
            assert finer.boundary_f1 >= coarser.boundary_f1
        assert found.ceiling(2) is None
        assert found.ceiling(4) == found.ceiling(5.3) == found.ceilings[0]
        assert found.ceiling(64) == found.ceilings[-1]

    @pytest.mark.parametrize("stride", [4, 8])
    def test_ceilings_are_about_what_scores_fitted_to_the_labels_reach(self, stride):
        """An independent estimate: score maps of the stride, fitted to the labels by cross-entropy."""
        mask = scene()
        reached = fitted_miou(mask, stride)
        found = measured(mask, size=mask.shape)
        assert found is not None
        estimate = found.ceiling(stride)
        assert estimate is not None
        assert estimate.miou == pytest.approx(reached, abs=0.12)
        blurred = SegmentationMetrics(2)  # cells of the whole stride would promise less than was reached
        blurred.update(drawn_at(mask, 2 * stride), mask)
        assert blurred.scores().miou < reached - 0.05

    def test_size_of_the_network(self):
        at_half = measured(stripe(4), size=(SIDE // 2, SIDE // 2))
        tiled = measured(stripe(4), size=(SIDE // 2, SIDE // 2), resize="tile")
        assert at_half is not None
        assert tiled is not None
        assert at_half.classes[1].area == (2 * SIDE // 2,) * 3
        assert tiled.classes[1].area == (4 * SIDE // 2,) * 3
        assert (at_half.masks, tiled.masks) == (1, 4)

    def test_what_resizing_costs(self):
        found = measured(stripe(1, at=16), size=(16, 16))  # columns 2, 6, 10, … are kept
        assert found is not None
        assert found.classes[1].resized == 0
        assert found.classes[1].components == 0
        assert (found.classes[1].area, found.classes[1].width) == (None, None)
        assert found.classes[0].resized == pytest.approx(1 - 1 / SIDE)

    def test_the_same_masks_each_time_and_not_all(self, monkeypatch):
        monkeypatch.setattr(structures, "MOST_MASKS", 3)
        masks, again = Masks(*[stripe(width) for width in range(1, 30)]), Masks(*[stripe(3)] * 29)
        config = DataConfig("folder", size=(SIDE, SIDE))
        for reader in (masks, again):
            measure_structures(reader, ("ground", "thing"), config)
        assert masks.read == again.read
        assert len(set(masks.read)) == 3
        monkeypatch.setattr(structures, "MOST_WORK", 1)
        few = Masks(*masks.masks)
        assert measure_structures(few, ("ground", "thing"), config)
        assert len(few.read) == 1

    def test_masks_without_a_valid_pixel(self):
        empty = np.full((SIDE, SIDE), IGNORE, np.uint8)
        assert measured(empty, size=(SIDE, SIDE)) is None
        found = measured(empty, stripe(4), size=(SIDE, SIDE))
        assert found is not None
        assert found.masks == 1


def fitted_miou(mask, stride):
    label = torch.from_numpy(mask).long()[None]
    size = mask.shape
    start = F.interpolate(
        F.one_hot(label, 2).permute(0, 3, 1, 2).float(), scale_factor=1 / stride, mode="area"
    )
    scores = (start + 0.02).log().requires_grad_()
    optimizer = torch.optim.Adam([scores], lr=0.3)
    for _ in range(100):
        full = F.interpolate(scores, size, mode="bilinear", align_corners=False)
        loss = F.cross_entropy(full, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    metrics = SegmentationMetrics(2)
    full = F.interpolate(scores.detach(), size, mode="bilinear", align_corners=False)
    metrics.update(full.argmax(1).numpy(), mask[None])
    return metrics.scores().miou
