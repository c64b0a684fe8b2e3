"""The sample type, its checks, and the statistics of a split."""

import msgspec
import numpy as np
import pytest
import torch

from deploy.errors import UserError
from distill.data.sample import make_sample, stack
from distill.data.stats import Stats, compute_stats, images_by_class
from tests.distill.data.listed import Listed


def test_uint8_image_keeps_its_units():
    image = np.array([[[0, 128, 255]]], np.uint8)
    sample = make_sample(image, np.array([[1]], np.uint8), id="a", num_classes=2)
    assert sample.image.dtype == torch.float32
    assert sample.image.flatten().tolist() == [0, 128, 255]
    assert sample.label.dtype == torch.int64
    assert sample.valid.tolist() == [[True]]


def test_valid_is_false_exactly_where_the_label_is_void_or_a_channel_has_no_data():
    image = np.array([[[1.0, 2.0], [np.nan, 2.0], [1.0, -np.inf], [3.0, 4.0]]], np.float32)
    sample = make_sample(image, np.array([[0, 1, 1, 255]]), id="a", num_classes=2)
    assert sample.valid.tolist() == [[True, False, False, False]]
    assert sample.label.tolist() == [[0, 255, 255, 255]]
    assert sample.image[0].isnan().tolist() == [[False, True, False, False]]
    assert sample.image[1].isnan().tolist() == [[False, False, True, False]]
    assert not sample.image.isinf().any()


def test_a_sample_without_a_valid_pixel_is_legal():
    sample = make_sample(np.zeros((2, 3, 1), np.uint8), np.full((2, 3), 255), id="a", num_classes=2)
    assert not sample.valid.any()


def test_size_mismatch_names_the_id_and_both_sizes():
    with pytest.raises(UserError, match=r"m\.png: the label is 3×2 pixels but the image of frame7 is 2×3"):
        make_sample(
            np.zeros((2, 3, 1), np.uint8), np.zeros((3, 2), int), id="frame7", num_classes=2, source="m.png"
        )


@pytest.mark.parametrize(("bad", "shown"), [(11, "11"), (-1, "-1"), (254, "254")])
def test_label_out_of_range_names_file_ids_and_class_count(bad, shown):
    label = np.array([[0, bad]])
    with pytest.raises(UserError, match=rf"m\.png: label id {shown} is out of range for 3 classes \(0\.\.2"):
        make_sample(np.zeros((1, 2, 1), np.uint8), label, id="a", num_classes=3, source="m.png")


def test_batch_of_unequal_sizes_names_both():
    def blank(height, width, name):
        return make_sample(
            np.zeros((height, width, 1), np.uint8), np.zeros((height, width), int), id=name, num_classes=1
        )

    with pytest.raises(UserError, match=r"a \(1×2×3\) with b \(1×2×4\)"):
        stack([blank(2, 3, "a"), blank(2, 4, "b")])
    batch = stack([blank(2, 3, "a"), blank(2, 3, "b")])
    assert batch.image.shape == (2, 1, 2, 3)
    assert batch.label.shape == batch.valid.shape == (2, 2, 3)
    assert batch.ids == ("a", "b")
    assert batch.to("cpu").ids == batch.ids


def test_stats_equal_numpy_over_all_valid_pixels():
    rng = np.random.default_rng(0)
    samples, pixels, labels = [], [], []
    for number, (height, width) in enumerate([(5, 7), (9, 4), (3, 3), (6, 6)]):
        # A mean far from zero relative to the deviation: naive sums of squares in float32 would fail here.
        image = rng.normal([10_000, -20], 0.5, (height, width, 2)).astype(np.float32)
        label = rng.integers(0, 3, (height, width))
        label[rng.random(label.shape) < 0.2] = 255
        image[rng.random(label.shape) < 0.2, number % 2] = np.nan
        if number == 2:
            label[:] = 255  # an image without a valid pixel changes nothing
        keep = (label != 255) & np.isfinite(image).all(axis=2)
        pixels.append(image[keep])
        labels.append(label[keep])
        samples.append(make_sample(image, label, id=str(number), num_classes=3))
    stats = compute_stats(Listed(samples), 3)
    everything = np.concatenate(pixels).astype(np.float64)
    np.testing.assert_allclose(stats.mean, everything.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(stats.std, everything.std(axis=0), rtol=1e-9)
    assert stats.class_pixels == tuple(np.bincount(np.concatenate(labels), minlength=3).tolist())
    assert stats.images == 4


def test_stats_survive_json():
    sample = make_sample(np.full((2, 2, 1), 7, np.uint8), np.zeros((2, 2), int), id="a", num_classes=2)
    stats = compute_stats(Listed([sample]), 2)
    assert msgspec.json.decode(msgspec.json.encode(stats), type=Stats) == stats
    assert stats == Stats((7.0,), (1.0,), (4, 0), 1, (b"\x80", b"\x00"))  # constant channel: std 1


def test_stats_know_which_images_have_a_class():
    rng = np.random.default_rng(0)
    labels = [rng.choice([*rng.permutation(5)[:2], 255], (3, 4)) for _ in range(19)]
    labels[7][:] = 255
    image = np.zeros((3, 4, 1), np.uint8)
    samples = [make_sample(image, label, id=str(n), num_classes=6) for n, label in enumerate(labels)]
    stats = compute_stats(Listed(samples), 6)
    stored = msgspec.json.decode(msgspec.json.encode(stats), type=Stats)
    found = [images.tolist() for images in images_by_class(stored)]
    assert found == [[n for n, label in enumerate(labels) if (label == c).any()] for c in range(6)]
    assert found[5] == []


def test_stats_of_nothing_valid_is_an_error():
    sample = make_sample(np.zeros((2, 2, 1), np.uint8), np.full((2, 2), 255), id="a", num_classes=2)
    with pytest.raises(UserError, match="none of the 1 training images has a valid pixel"):
        compute_stats(Listed([sample]), 2)
