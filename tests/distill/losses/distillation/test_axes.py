"""Over which axes losses compare: maps, channels, positions or cells."""

import pytest
import torch

from deploy.errors import UserError
from distill.losses.distillation.common import Pixels
from distill.losses.registry import DISTILLATION_LOSSES
from tests.distill.losses.dense import CLASSES, compute, make_memory, normal

CHANNELS_CORRESPOND = (
    "kl",
    "hard",
    "cwd",
    "mse",
    "dist",
    "boundary",
    "jaccard",
    "feature",
    "cosine",
    "cirkd",
)
"""Losses that compare map i of the student with map i of the teacher, whatever i."""


class TestAxes:
    ORDER = (2, 0, 3, 1)

    @pytest.mark.parametrize("name", CHANNELS_CORRESPOND)
    def test_maps_correspond(self, scene, name):
        student, teacher, pixels = scene
        memory = {"memory": make_memory(filled=False)} if DISTILLATION_LOSSES[name].memory else {}
        loss = compute(name, student, teacher, pixels, **memory)
        student = student[:, self.ORDER]
        torch.testing.assert_close(compute(name, student, teacher[:, self.ORDER], pixels, **memory), loss)
        if name != "cirkd":
            assert not torch.isclose(compute(name, student, teacher, pixels, **memory), loss).any()

    def test_remembered_channels_correspond(self, scene):
        student, teacher, pixels = scene
        loss = compute("cirkd", student, teacher, pixels, batch=0)
        assert not torch.isclose(
            compute("cirkd", student[:, self.ORDER], teacher, pixels, batch=0), loss
        ).any()

    @pytest.mark.parametrize("name", ["at", "skd", "ifvd"])
    def test_channels_need_not_correspond(self, scene, name):
        student, teacher, pixels = scene
        loss = compute(name, student, teacher, pixels)
        torch.testing.assert_close(compute(name, student[:, self.ORDER], teacher, pixels), loss)
        assert torch.isfinite(compute(name, normal(2, 7, 4, 6), teacher, pixels)).all()

    @pytest.mark.parametrize("name", ["at", "skd", "ifvd"])
    def test_other_channel_counts_add_nothing_where_they_repeat(self, scene, name):
        student, _, pixels = scene
        assert compute(name, student.tile(1, 3, 1, 1), student, pixels).max() <= 1e-9

    @pytest.mark.parametrize(
        "name", [name for name in DISTILLATION_LOSSES if name not in ("at", "skd", "ifvd")]
    )
    def test_other_map_counts_are_refused(self, scene, name):
        student, _, pixels = scene
        with pytest.raises(UserError, match="19 maps, the student 4"):
            compute(name, student, normal(2, 19, 4, 6), pixels)

    @pytest.mark.parametrize("name", ["kl", "dist", "boundary"])
    def test_softmax_does_not_see_a_constant(self, scene, name):
        student, _, pixels = scene
        shifted = student + normal(2, 1, 4, 6, seed=5)
        assert compute(name, student, shifted, pixels).max() <= 1e-12

    def test_channel_wise_softmax_is_over_positions(self, scene):
        student, _, pixels = scene
        assert compute("cwd", student, student + normal(2, CLASSES, 1, 1, seed=5), pixels).max() <= 1e-12
        assert compute("cwd", student, student + normal(2, 1, 4, 6, seed=5), pixels).min() > 1e-3

    @pytest.mark.parametrize("name", ["cosine", "skd", "ifvd", "cirkd"])
    def test_cosine_does_not_see_the_length_of_a_cell(self, scene, name):
        student, _, _ = scene
        pixels = Pixels(torch.ones(2, 4, 6), torch.zeros(2, 4, 6, dtype=torch.int64), CLASSES)
        options = {"skd": {"pool": 1}}.get(name, {})
        lengths = 1 if name == "ifvd" else normal(2, 1, 4, 6, seed=5).abs() + 0.5
        assert compute(name, student, 3 * lengths * student, pixels, **options).max() <= 1e-9
