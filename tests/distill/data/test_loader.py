"""The order and content of training batches: a pure function of seed and step."""

import multiprocessing
import time
from collections import Counter

import cv2
import numpy as np
import pytest
import torch

from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError
from deploy.inference.preprocess import prepare
from distill.config import AugmentConfig, DataConfig
from distill.data.loader import Shard, train_batches
from distill.data.sample import Batch, Sample, make_sample
from distill.data.train_view import TrainView
from distill.tasks.registry import open_splits

MEAN = (-12.0, -19.0)
CROP = AugmentConfig(crop=(24, 16), vertical_flip=True)


class Scenes:
    """The synthetic training reader with a counter of reads, and optionally one broken file."""

    def __init__(self, count=10, broken: int | None = None) -> None:
        config = DataConfig("synthetic", size=(32, 32), synthetic_counts=(count, 1, 1))
        self.reader = open_splits(config, seed=3).train
        self.ids = self.reader.ids
        self.broken = broken
        self.reads: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> Sample:
        self.reads[index] += 1
        if index == self.broken:
            raise UserError("scene.png: corrupt image")
        sample = self.reader[index]
        image = sample.image.numpy().transpose(1, 2, 0).copy()
        image[3:9, 4:7, 0] = np.nan  # no data in one channel only
        return make_sample(image, sample.label.numpy(), id=sample.id, num_classes=2)


def view(count=10, *, augment: AugmentConfig | None = CROP, seed=0, cache=True, broken=None, size=(32, 32)):
    scenes = Scenes(count, broken)
    return TrainView(scenes, size=size, augment=augment, mean=MEAN, optical=False, seed=seed, cache=cache)


def assert_equal(first: list[Batch], second: list[Batch]) -> None:
    assert [batch.ids for batch in first] == [batch.ids for batch in second]
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.label, b.label)
        assert torch.equal(a.valid, b.valid)


def test_workers_change_nothing_and_leave_nothing_behind():
    alone = list(train_batches(view(), 4, seed=0, start_step=0, steps=6))
    helped = list(train_batches(view(), 4, seed=0, start_step=0, steps=6, workers=2))
    assert_equal(alone, helped)
    assert multiprocessing.active_children() == []


@pytest.mark.timeout(60)
def test_workers_start_where_opencv_has_threads():
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        cv2.warpAffine(np.zeros((600, 600, 4), np.float32), np.eye(2, 3), (600, 600))
        time.sleep(0.1)  # until its threads have gone to sleep
        assert len(list(train_batches(view(), 4, seed=0, start_step=0, steps=1, workers=1))) == 1
    finally:
        cv2.setNumThreads(threads)


def test_stopping_early_ends_the_workers():
    batches = train_batches(view(), 4, seed=0, start_step=0, steps=50, workers=1)
    next(batches)
    assert multiprocessing.active_children()
    batches.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert multiprocessing.active_children() == []


def test_resuming_continues_the_uninterrupted_run():
    whole = list(train_batches(view(), 4, seed=0, start_step=0, steps=9))
    for start in (1, 3, 8):
        resumed = list(train_batches(view(), 4, seed=0, start_step=start, steps=9 - start))
        assert_equal(whole[start:], resumed)


def test_processes_and_micro_batches_share_the_batch_in_order():
    whole = list(train_batches(view(), 8, seed=0, start_step=2, steps=3))
    parts = [
        list(train_batches(view(), 8, seed=0, start_step=2, steps=3, shard=Shard(rank, world=2, micro=2)))
        for rank in (0, 1)
    ]
    assert [len(part) for part in parts] == [6, 6]
    for step, batch in enumerate(whole):
        pieces = [parts[rank][2 * step + m] for m in (0, 1) for rank in (0, 1)]
        assert batch.ids == tuple(name for piece in pieces for name in piece.ids)
        assert torch.equal(batch.image, torch.cat([piece.image for piece in pieces]))


def test_batch_larger_than_the_data_set():
    (batch,) = train_batches(view(3), 8, seed=0, start_step=0, steps=1)
    assert batch.image.shape == (8, 2, 24, 16)
    assert set(Counter(batch.ids).values()) <= {2, 3}


def test_augmentation_differs_by_epoch_and_seed_but_not_by_history():
    base = view(1)
    fresh = view(1)[1, 0]
    first, second = base[0, 0], base[1, 0]
    assert torch.equal(second.image, fresh.image)
    assert not torch.equal(first.image, second.image)
    assert not torch.equal(first.image, view(1, seed=1)[0, 0].image)


def test_loading_leaves_the_global_generators_alone():
    state, legacy = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    list(train_batches(view(), 4, seed=0, start_step=0, steps=3))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (np.random.get_state()[1] == legacy).all()  # noqa: NPY002


def test_batches_have_no_nan_and_invalid_pixels_are_void():
    scenes = view(20)
    assert all(scenes.reader[index].image.isnan().any() for index in range(20))
    for batch in train_batches(scenes, 4, seed=0, start_step=0, steps=10):
        assert batch.image.isfinite().all()
        assert torch.equal(batch.valid, batch.label != 255)


def test_cache_reads_once_and_changes_nothing():
    cached, uncached = view(4), view(4, cache=False)
    assert_equal(
        list(train_batches(cached, 4, seed=0, start_step=0, steps=3)),
        list(train_batches(uncached, 4, seed=0, start_step=0, steps=3)),
    )
    assert set(cached.reader.reads.values()) == {1}
    assert set(uncached.reader.reads.values()) == {3}


def test_full_cache_keeps_reading(monkeypatch):
    monkeypatch.setattr("distill.data.cache.CACHE_BYTES", 2 * 32 * 32 * 10)
    small = view(4)
    list(train_batches(small, 4, seed=0, start_step=0, steps=3))
    assert sorted(small.reader.reads.values()) == [1, 1, 3, 3]


class Photos:
    """Optical images with void labels."""

    ids = ("photo",)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        label = rng.integers(0, 3, (45, 60))
        label[:5] = 255
        return make_sample(self.pixels(), label, id="photo", num_classes=3)

    def pixels(self) -> np.ndarray:
        return np.random.default_rng(9).integers(0, 256, (45, 60, 3)).astype(np.uint8)


@pytest.mark.parametrize("size", [(20, 30), (90, 120), (45, 60), (20, 120)])
def test_photo_without_augmentation_is_what_the_device_prepares(size: tuple[int, int]):
    photos = Photos()
    spec = InputSpec(("R", "G", "B"), *size, "uint8", "NHWC", (0.0,) * 3, (1.0,) * 3)
    sample = TrainView(photos, size=size, augment=None, mean=(0, 0, 0), optical=True)[0, 0]
    expected, _ = prepare(photos.pixels(), spec)
    np.testing.assert_array_equal(sample.image.numpy().transpose(1, 2, 0), expected)
    assert sample.label.shape == size
    assert not sample.valid[0].any()


@pytest.mark.parametrize("size", [(16, 16), (48, 48)])
def test_radar_without_augmentation_is_what_the_device_prepares(size: tuple[int, int]):
    scenes = view(12, augment=None, size=size)
    spec = InputSpec(("VV", "VH"), *size, "float32", "NCHW", MEAN, (1.0, 1.0), nodata="nan")
    for index in range(12):
        raw = scenes.reader[index].image.numpy().transpose(1, 2, 0)
        np.testing.assert_array_equal(scenes[0, index].image.numpy(), prepare(raw, spec)[0])


@pytest.mark.parametrize("normalize", ["image", "patch"])
@pytest.mark.parametrize("size", [(16, 16), (48, 48)])
def test_radar_with_its_own_statistics_is_what_the_device_prepares(size: tuple[int, int], normalize):
    reader = view(12, augment=None, size=size).reader
    scenes = TrainView(reader, size=size, augment=None, mean=MEAN, optical=False, normalize=normalize)
    zeros, ones = (0.0, 0.0), (1.0, 1.0)
    spec = InputSpec(("VV", "VH"), *size, "float32", "NCHW", zeros, ones, nodata="nan", normalize=normalize)
    for index in range(12):
        raw = reader[index].image.numpy().transpose(1, 2, 0)
        np.testing.assert_array_equal(scenes[0, index].image.numpy(), prepare(raw, spec)[0])


def test_photo_with_its_own_statistics_is_what_the_device_prepares():
    photos = TrainView(Photos(), size=(20, 30), augment=None, mean=(0, 0, 0), optical=True, normalize="image")
    spec = InputSpec(
        ("R", "G", "B"), 20, 30, "float32", "NCHW", (0.0,) * 3, (1.0,) * 3, nodata="nan", normalize="image"
    )
    np.testing.assert_array_equal(photos[0, 0].image.numpy(), prepare(Photos().pixels(), spec)[0])


def test_a_crop_is_normalized_by_the_pixels_in_it_that_carry_data():
    far = AugmentConfig(crop=(40, 40), scale=(0.5, 0.6))  # reaches beyond the scene, which has gaps itself
    reader = view(12, augment=None).reader
    scenes = TrainView(reader, size=(32, 32), augment=far, mean=MEAN, optical=False, normalize="patch")
    for index in range(12):
        image = scenes[3, index].image
        assert image.isfinite().all()
        seen = image[:, image.any(dim=0)]
        assert seen.shape[1] < 1600
        torch.testing.assert_close(seen.mean(dim=1), torch.zeros(2), atol=1e-4, rtol=0)
        torch.testing.assert_close(seen.std(dim=1), torch.ones(2), atol=1e-2, rtol=0)


def test_label_at_network_scale_is_sampled_at_pixel_centers():
    class Rows(Photos):
        def __getitem__(self, index: int) -> Sample:
            label = np.repeat(np.arange(60)[:, None], 8, axis=1)
            return make_sample(np.zeros((60, 8, 3), np.uint8), label, id="rows", num_classes=60)

    sample = TrainView(Rows(), size=(20, 8), augment=None, mean=(0, 0, 0), optical=True)[0, 0]
    assert sample.label[:, 0].tolist() == list(range(1, 60, 3))


def test_tile_keeps_full_resolution():
    photos = TrainView(Photos(), size=(16, 16), resize="tile", augment=None, mean=(0, 0, 0), optical=True)
    assert photos[0, 0].image.shape == (3, 45, 60)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_reader_arrives_unchanged(workers):
    before = multiprocessing.active_children()  # of other tests
    batches = train_batches(view(broken=5), 4, seed=0, start_step=0, steps=6, workers=workers)
    with pytest.raises(UserError, match=r"^scene\.png: corrupt image$"):
        list(batches)
    assert set(multiprocessing.active_children()) <= set(before)


def test_unequal_sizes_are_named():
    mixed = view(2, augment=None)
    mixed.resize = "tile"
    mixed.reader.reader = Mixed()
    with pytest.raises(UserError, match="cannot batch"):
        list(train_batches(mixed, 2, seed=0, start_step=0, steps=1))


class Mixed:
    """Scenes of two sizes."""

    ids = ("a", "b")

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        side = 16 + index
        return make_sample(
            np.zeros((side, side, 2), np.float32),
            np.zeros((side, side), int),
            id=self.ids[index],
            num_classes=2,
        )


def test_indivisible_batch_and_empty_split_are_refused_at_once():
    with pytest.raises(UserError, match="batch of 6 does not divide"):
        train_batches(view(), 6, seed=0, start_step=0, steps=1, shard=Shard(world=2, micro=2))
    empty = view()
    empty.reader.reader = []
    with pytest.raises(UserError, match="no images"):
        train_batches(empty, 4, seed=0, start_step=0, steps=1)
