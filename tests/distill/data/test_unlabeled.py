"""Images without labels: where they are found, which labels a run leaves out, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.errors import UserError
from deploy.files.images import write_png
from distill.config import AugmentConfig, DataConfig
from distill.data.fingerprint import differences, fingerprint
from distill.data.loader import train_batches
from distill.data.readers import training_images
from distill.data.splits import Splits, files_of
from distill.data.stats import compute_stats, images_by_class
from distill.data.train_view import TrainView
from distill.data.unlabeled import order_of
from distill.pipeline.read_check import read_all
from distill.tasks.registry import open_splits
from tests.distill.data.datasets.raster_folders import ombria

SIZE = (24, 24)


def photo(path: Path, seed=0, shape=(24, 24, 3)) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8)
    write_png(path, pixels)
    return pixels


@pytest.fixture
def root(tmp_path):
    """Labeled photos of four rows of land and water."""
    for split in ("train", "val"):
        for number in range(4):
            photo(tmp_path / "data" / split / "images" / f"{number}.png", number)
            label = np.repeat([0, 1], 12)[:, None].repeat(24, 1).astype(np.uint8)
            label[0] = 255
            write_png(tmp_path / "data" / split / "masks" / f"{number}.png", label)
    return tmp_path / "data"


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for number in range(3):
        photo(folder / f"p{number}.png", 10 + number, (30, 20, 3))
    return folder


def opened(root, **fields) -> Splits:
    return open_splits(DataConfig("folder", root, size=SIZE, **fields))


def test_a_folder_of_images(root, photos):
    splits = opened(root, unlabeled=photos)
    assert len(splits.train) == 4
    assert list(splits.unlabeled.ids) == ["unlabeled/p0.png", "unlabeled/p1.png", "unlabeled/p2.png"]
    sample = splits.unlabeled[1]
    assert sample.image.shape == (3, 30, 20)
    assert sample.valid.all()
    assert not sample.labeled.any()
    assert (sample.label == 255).all()
    assert files_of(splits.unlabeled, 1) == (photos / "p1.png",)


def test_its_images_may_lie_one_folder_below(root, photos):
    (photos.parent / "other").mkdir()
    photos.rename(photos.parent / "other" / "images")
    assert len(opened(root, unlabeled=photos.parent / "other").unlabeled) == 3


def test_radar_with_a_folder_for_each_channel(tmp_path):
    ombria(tmp_path / "data")
    for number, channel in enumerate(("before", "after")):
        photo(tmp_path / "more" / channel / "x.png", number, (6, 8, 1))
    config = DataConfig("ombria", tmp_path / "data", size=SIZE, unlabeled=tmp_path / "more")
    sample = open_splits(config).unlabeled[0]
    assert sample.image.shape == (2, 6, 8)
    assert not torch.equal(sample.image[0], sample.image[1])
    after = open_splits(replace(config, channels=("after",))).unlabeled[0]
    assert torch.equal(after.image, sample.image[1:])


def test_pixels_without_data_do_not_count(tmp_path):
    image = np.random.default_rng(0).normal(size=(24, 24, 2)).astype(np.float32)
    for kind in ("train", "val"):
        folder = tmp_path / "data" / kind
        write_png(folder / "masks" / "0.png", np.eye(24, dtype=np.uint8))
        (folder / "images").mkdir()
        np.save(folder / "images" / "0.npy", image)
    image[:5, :, 1] = np.nan
    (tmp_path / "more").mkdir()
    np.save(tmp_path / "more" / "gap.npy", image)
    sample = opened(tmp_path / "data", unlabeled=tmp_path / "more").unlabeled[0]
    assert not sample.valid[:5].any()
    assert sample.valid[5:].all()


def test_labels_of_some_training_images_only(root):
    splits, whole = opened(root, labels=1), opened(root)
    assert (len(splits.train), len(splits.unlabeled), len(splits.val)) == (1, 3, 4)
    assert {*splits.train.ids, *splits.unlabeled.ids} == set(whole.train.ids)
    sample = splits.unlabeled[0]
    same = whole.train[list(whole.train.ids).index(sample.id)]
    assert torch.equal(sample.image, same.image)
    assert sample.valid.all()  # void is a label, too
    assert not sample.labeled.any()


def test_more_labels_add_to_the_same_ones(root):
    fewer, more = (set(opened(root, labels=count).train.ids) for count in (2, 3))
    assert fewer < more


def test_both_kinds_are_joined(root, photos):
    splits = opened(root, labels=3, unlabeled=photos)
    assert len(splits.unlabeled) == 4
    together = training_images(splits).train
    assert len(together) == 7
    assert list(together.ids) == [*splits.train.ids, *splits.unlabeled.ids]
    assert [bool(together[index].labeled.any()) for index in range(7)] == [True] * 3 + [False] * 4
    assert files_of(together, 6) == (photos / "p2.png",)


def test_batches_have_both_masks_and_crops_of_classes_stay_with_labels(root, photos):
    splits = opened(root, unlabeled=photos)
    view = TrainView(
        training_images(splits).train,
        size=SIZE,
        augment=AugmentConfig(crop=(40, 40), scale=(0.8, 1.2), balance=1.0),
        mean=(0.0,) * 3,
        optical=True,
        class_images=images_by_class(compute_stats(splits.train, 2)),
        labeled=4,
    )
    config = DataConfig("folder", root, size=SIZE, unlabeled_share=0.5)
    batches = list(train_batches(view, 4, 0, 0, 6, order=order_of(splits, config)))
    for batch in batches:
        without = [name.startswith("unlabeled/") for name in batch.ids]
        assert sum(without) == 2
        for name, label, valid, known in zip(batch.ids, batch.label, batch.valid, batch.labeled, strict=True):
            assert torch.equal(known, label != 255)
            assert valid.any()
            assert not valid.all()  # padding around the crop
            assert known.any() != name.startswith("unlabeled/")
    assert {name for batch in batches for name in batch.ids if name.startswith("un")} == {
        f"unlabeled/p{number}.png" for number in range(3)
    }


def test_labeled_images_alone_have_no_second_mask(root):
    splits = opened(root)
    view = TrainView(splits.train, size=SIZE, augment=None, mean=(0.0,) * 3, optical=True)
    (batch,) = train_batches(view, 2, 0, 0, 1)
    assert batch.unlabeled is None
    assert batch.labeled is batch.valid


def test_the_fingerprint_covers_them(root, photos):
    before = fingerprint(opened(root, unlabeled=photos))
    photo(photos / "p1.png", seed=77, shape=(30, 20, 3))
    photo(photos / "p9.png")
    (photos / "p0.png").unlink()
    assert differences(before, fingerprint(opened(root, unlabeled=photos))) == [
        "1 of unlabeled added (unlabeled/p9.png)",
        "1 of unlabeled removed (unlabeled/p0.png)",
        "1 of unlabeled changed (unlabeled/p1.png)",
    ]
    (line,) = differences(before, fingerprint(opened(root)))
    assert line.startswith("3 of unlabeled removed")


class TestMistakes:
    def test_no_such_folder(self, root):
        with pytest.raises(UserError, match=r"none: no such folder"):
            opened(root, unlabeled=root / "none")

    def test_an_empty_folder(self, root, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(UserError, match=r"empty: holds no image; looked for \.png"):
            opened(root, unlabeled=tmp_path / "empty")

    def test_a_file_that_cannot_be_read(self, root, photos):
        (photos / "p1.png").write_bytes((photos / "p1.png").read_bytes()[:60])
        with pytest.raises(UserError, match=r"photos/p1\.png: "):
            read_all(opened(root, unlabeled=photos).unlabeled)

    @pytest.mark.parametrize(
        ("pixels", "words"),
        [
            (np.zeros((9, 9), np.uint8), "has 1 channels, but this data set has 3"),
            (np.zeros((9, 9), np.uint16), "has 1 channels, but this data set has 3"),
        ],
    )
    def test_other_channels(self, root, photos, pixels, words):
        write_png(photos / "p2.png", pixels)
        with pytest.raises(UserError, match=rf"photos/p2\.png: {words}"):
            read_all(opened(root, unlabeled=photos).unlabeled)

    def test_another_type(self, root, photos):
        np.save(photos / "p3.npy", np.zeros((9, 9, 3), np.float32))
        with pytest.raises(UserError, match=r"p3\.npy: pixels are float32, but this data set has uint8"):
            read_all(opened(root, unlabeled=photos).unlabeled)

    def test_a_channel_without_its_file(self, tmp_path):
        ombria(tmp_path / "data")
        photo(tmp_path / "more" / "before" / "x.png", shape=(6, 8, 1))
        photo(tmp_path / "more" / "after" / "y.png", shape=(6, 8, 1))
        with pytest.raises(UserError, match=r"after/x\.png: no such image, though .*before/x\.png is one"):
            open_splits(DataConfig("ombria", tmp_path / "data", unlabeled=tmp_path / "more"))

    def test_channels_of_other_sizes(self, tmp_path):
        ombria(tmp_path / "data")
        photo(tmp_path / "more" / "before" / "x.png", shape=(6, 8, 1))
        photo(tmp_path / "more" / "after" / "x.png", shape=(5, 8, 1))
        splits = open_splits(DataConfig("ombria", tmp_path / "data", unlabeled=tmp_path / "more"))
        with pytest.raises(UserError, match=r"after/x\.png: is one channel .* 5×8×1 of uint8; .* 6×8×1"):
            splits.unlabeled[0]

    def test_more_labels_than_images(self, root):
        with pytest.raises(UserError, match=r"--data\.labels 4: the training split has 4 images; give fewer"):
            opened(root, labels=4)


@pytest.mark.realdata("camvid")
def test_an_eighth_of_camvid():
    splits = open_splits(DataConfig("camvid", labels=46))
    assert (len(splits.train), len(splits.unlabeled)) == (46, 321)
    assert compute_stats(splits.train, 11).images == 46
    assert not splits.unlabeled[0].labeled.any()


@pytest.mark.realdata("ombria")
def test_some_labels_of_ombria_and_tiles_of_its_test_split(data_root):
    config = DataConfig("ombria", labels=60, unlabeled=data_root / "ombria" / "test")
    splits = open_splits(config)
    assert (len(splits.train), len(splits.unlabeled)) == (60, 502 + 70)
    assert splits.unlabeled[571].image.shape == (2, 256, 256)
