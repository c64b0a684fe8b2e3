"""Synthetic flood scenes: deterministic, balanced, with no-data borders, and not solved by a threshold."""

import time

import numpy as np
import pytest
import torch

from deploy.errors import UserError
from distill.config import DataConfig
from distill.tasks.registry import open_splits


def scenes(count=24, size=(64, 64), seed=0):
    config = DataConfig("synthetic", size=size, synthetic_counts=(count, count, count))
    return open_splits(config, seed)


def test_description():
    splits = scenes()
    assert splits.channels == ("VV", "VH")
    assert [info.name for info in splits.classes] == ["land", "water"]
    assert not splits.optical
    assert len(splits.train) == len(splits.val) == len(splits.test) == 24


def test_a_scene_depends_on_seed_split_and_index_alone():
    first, second = scenes().train, scenes(count=5).train
    first[3]
    np.testing.assert_array_equal(first[2].image, second[2].image)  # neither count nor history matter
    assert torch.equal(first[2].label, second[2].label)
    different = [
        scenes().train[0],
        scenes().train[1],
        scenes().val[0],
        scenes().test[0],
        scenes(seed=1).train[0],
    ]
    sums = {float(sample.image.nan_to_num().sum()) for sample in different}
    assert len(sums) == len(different)


def test_ids_are_unique_over_splits():
    splits = scenes()
    ids = [*splits.train.ids, *splits.val.ids, *splits.test.ids]
    assert len(set(ids)) == 72
    assert splits.val[7].id == splits.val.ids[7]


@pytest.mark.parametrize("size", [(16, 16), (33, 47), (64, 128)])
def test_any_size(size):
    for sample in (scenes(6, size).train[index] for index in range(6)):
        assert sample.image.shape == (2, *size)
        assert sample.image.dtype == torch.float32
        finite = sample.image[sample.image.isfinite()]
        assert -62 < finite.min() < finite.max() < 15  # decibels


def test_some_scenes_have_borders_without_data():
    shares = [
        float(sample.image[0].isnan().float().mean()) for sample in map(scenes().train.__getitem__, range(24))
    ]
    with_border = [share for share in shares if share > 0]
    assert 4 <= len(with_border) <= 18
    assert max(with_border) < 0.3
    for sample in map(scenes().train.__getitem__, range(24)):
        assert torch.equal(sample.valid, ~sample.image.isnan().any(dim=0))


def test_water_is_common_but_not_most():
    samples = [scenes().train[index] for index in range(24)]
    water = sum(int((s.label == 1).sum()) for s in samples) / sum(int(s.valid.sum()) for s in samples)
    assert 0.12 < water < 0.4


def miou(confusion: np.ndarray) -> float:
    hits = np.diag(confusion)
    return float((hits / (confusion.sum(0) + confusion.sum(1) - hits)).mean())


def test_a_threshold_helps_but_does_not_solve_the_task():
    """The best VV threshold, chosen on the very same scenes, stays far from a solution."""
    splits = scenes(24, (96, 96))
    samples = [splits.train[index] for index in range(24)]
    vv = np.concatenate([s.image[0][s.valid].numpy() for s in samples])
    label = np.concatenate([s.label[s.valid].numpy() for s in samples])
    scores = [
        miou(np.bincount(2 * label + (vv < threshold), minlength=4).reshape(2, 2).astype(float))
        for threshold in np.arange(-26, -8, 0.5)
    ]
    assert 0.5 < max(scores) < 0.85


def test_water_is_darker_in_both_channels_but_look_alikes_overlap():
    samples = [scenes().train[index] for index in range(24)]
    for channel in (0, 1):
        water, land = (
            np.concatenate([s.image[channel][s.label == k].numpy() for s in samples]) for k in (1, 0)
        )
        assert np.median(land) - np.median(water) > 4
        assert np.quantile(water, 0.95) > np.quantile(land, 0.1)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"synthetic_counts": (4, 0, 4)}, "synthetic-counts"), ({"size": (8, 96)}, "data.size")],
)
def test_invalid_settings_are_named(change, named):
    with pytest.raises(UserError, match=named):
        open_splits(DataConfig("synthetic", **change))


def test_speed_is_reported(record_property, capsys):
    """No limit here: a loaded machine is no failure. The project promises more than 20 scenes/s at 256²."""
    reader = scenes(8, (256, 256)).train
    reader[0]
    start = time.perf_counter()
    for index in range(8):
        assert reader[index].image.shape == (2, 256, 256)
    rate = 8 / (time.perf_counter() - start)
    record_property("scenes_per_second", rate)
    with capsys.disabled():
        print(f" [{rate:.0f} synthetic scenes/s at 256²] ", end="")
