"""Where training crops are taken: by default, around classes, and with enough valid pixels."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deploy.errors import UserError
from distill.config import AugmentConfig
from distill.data.augment import augment_sample
from distill.data.crops import TRIES, _offset, choose_window
from distill.data.loader import Shard, train_batches
from distill.data.sample import Sample, make_sample
from distill.data.stats import compute_stats, images_by_class
from distill.data.train_view import TrainView

CONFIG = AugmentConfig(crop=(8, 8), scale=(0.8, 1.5))


def labeled(label) -> Sample:
    label = torch.as_tensor(label)
    return Sample(label[None].float(), label, label != 255, "made")


def windows(config, sample, count=200, wanted=None):
    return [choose_window(sample, config, np.random.default_rng(seed), wanted) for seed in range(count)]


def inside(sample, window):
    top, left, tall, wide = window
    return sample.label[max(top, 0) : top + tall, max(left, 0) : left + wide]


def not_counting(sample, window):
    return 1 - float((inside(sample, window) != 255).sum()) / (window[2] * window[3])


def test_by_default_one_zoom_and_two_offsets_are_drawn():
    """Runs that were begun before resume to the same crops."""
    sample = labeled(torch.zeros(30, 20, dtype=torch.int64))
    for seed, window in enumerate(windows(CONFIG, sample)):
        rng = np.random.default_rng(seed)
        zoom = np.exp(rng.uniform(np.log(0.8), np.log(1.5)))
        side = round(8 / zoom)
        assert window == (rng.integers(0, 30 - side + 1), rng.integers(0, 20 - side + 1), side, side)


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_a_window_holds_its_point_and_lies_in_the_image(available, extent, data):
    point = data.draw(st.integers(0, available - 1))
    spare = available - extent
    for seed in range(5):
        start = _offset(available, extent, point, np.random.default_rng(seed))
        assert start <= point < start + extent
        assert min(spare, 0) <= start <= max(spare, 0)


def test_the_wanted_class_is_in_the_window_and_anywhere_in_it():
    label = torch.zeros(40, 40, dtype=torch.int64)
    label[20, 17] = 1
    sample = labeled(label)
    found = windows(CONFIG, sample, wanted=1)
    assert all((inside(sample, window) == 1).any() for window in found)
    rows = Counter(20 - top for top, *_ in found)
    assert set(rows) >= set(range(7)), "the pixel lies at each row of the crop"
    assert sum((inside(sample, window) == 1).any() for window in windows(CONFIG, sample)) < 20
    assert windows(CONFIG, sample, wanted=5) == windows(CONFIG, sample)  # a class that is not there


def test_a_crop_with_too_few_valid_pixels_is_redrawn():
    label = torch.zeros(40, 40, dtype=torch.int64)
    label[:, :28] = 255
    sample = labeled(label)
    shares = [not_counting(sample, window) for window in windows(CONFIG, sample)]
    limited = replace(CONFIG, max_no_data=0.25)
    found = [not_counting(sample, window) for window in windows(limited, sample)]
    assert np.mean(np.array(shares) > 0.25) > 0.5
    assert np.mean(np.array(found) > 0.25) < 0.1  # ten windows in a row were all worse
    assert max(found) <= max(shares)


def test_where_none_is_good_enough_the_best_is_taken():
    label = torch.full((30, 30), 255)
    label[10:14, 10:14] = 0
    sample = labeled(label)
    limited = replace(CONFIG, max_no_data=0.1)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        drawn = [choose_window(sample, CONFIG, rng) for _ in range(TRIES)]
        best = min(drawn, key=lambda window: not_counting(sample, window))
        assert choose_window(sample, limited, np.random.default_rng(seed)) == best
    nothing = labeled(torch.full((30, 30), 255))
    assert not augment_sample(nothing, limited, np.random.default_rng(0), [0.0], False).valid.any()


def test_what_lies_outside_the_image_does_not_count():
    sample = labeled(torch.zeros(6, 6, dtype=torch.int64))
    limited = replace(CONFIG, scale=(0.25, 4.0), max_no_data=0.5)
    assert np.mean([tall * wide > 72 for *_, tall, wide in windows(limited, sample)]) < 0.05
    assert (
        np.mean([tall * wide > 72 for *_, tall, wide in windows(replace(limited, max_no_data=1), sample)])
        > 0.3
    )


class Scenes:
    """Twenty images of class 0, of which one has a little of class 1 and three of class 2; class 3 never occurs."""

    ids = tuple(f"scene-{index}" for index in range(20))

    def __len__(self):
        return 20

    def __getitem__(self, index):
        label = np.zeros((24, 24), np.uint8)
        if index == 7:
            label[3:5, 18:20] = 1
        if index in (2, 7, 11):
            label[20:, :4] = 2
        image = np.random.default_rng(index).normal(size=(24, 24, 2)).astype(np.float32)
        return make_sample(image, label, id=self.ids[index], num_classes=4)


def view(balance, views=0, seed=0):
    config = AugmentConfig(crop=(8, 8), scale=(1.0, 1.0), balance=balance, max_no_data=0.5)
    return TrainView(
        Scenes(),
        size=(24, 24),
        augment=config,
        mean=(0.0, 0.0),
        optical=False,
        seed=seed,
        views=views,
        class_images=images_by_class(compute_stats(Scenes(), 4)),
    )


def occurrences(made):
    """Share of the samples of a view that have each class."""
    samples = [made[epoch, index] for epoch in range(30) for index in range(20)]
    return [np.mean([bool((sample.label == c).any()) for sample in samples]) for c in range(4)]


def test_the_share_of_crops_around_a_rare_class_is_that_asked_for():
    plain, half = occurrences(view(0.0)), occurrences(view(0.5))
    assert plain[1] < 0.02
    assert plain[2] < 0.05
    assert half[1] == pytest.approx(0.5 / 3, abs=0.06)  # three classes occur
    assert half[2] == pytest.approx(0.5 / 3, abs=0.06)
    assert half[3] == 0.0


def test_without_balance_keys_give_their_own_image():
    plain = view(0.0)
    assert [plain[4, index].id for index in range(20)] == list(Scenes.ids)


def test_a_crop_depends_on_its_key_alone():
    """So that a killed training, its fixed views and other processes see the same."""
    one, other = view(0.6), view(0.6)
    keys = [(epoch, index) for epoch in range(3) for index in range(20)]
    forwards = {key: one[key] for key in keys}
    for key in reversed(keys):
        assert torch.equal(other[key].image, forwards[key].image)
        assert other[key].id == forwards[key].id
    assert not torch.equal(view(0.6, seed=1)[0, 0].image, forwards[0, 0].image)
    fixed = view(0.6, views=2)
    assert all(torch.equal(fixed[5, index].image, forwards[1, index].image) for index in range(20))


def test_two_processes_share_the_batch_of_one():
    (whole,) = train_batches(view(0.6), 8, 0, 3, 1)
    parts = [
        next(iter(train_batches(view(0.6), 8, 0, 3, 1, shard=Shard(rank, world=2)))) for rank in range(2)
    ]
    assert torch.equal(torch.cat([part.image for part in parts]), whole.image)
    assert sum((part.ids for part in parts), ()) == whole.ids


@pytest.mark.parametrize(("field", "value"), [("balance", 1.5), ("balance", -0.1), ("max_no_data", 50.0)])
def test_shares_must_be_fractions(field, value):
    flag = field.replace("_", "-")
    with pytest.raises(UserError, match=rf"--augment\.{flag} {value}: must be a fraction in 0..1"):
        replace(CONFIG, **{field: value})
