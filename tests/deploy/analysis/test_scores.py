"""Scores of images compared with `deploy.evaluation.segmentation_metrics`, comparisons of models, error maps."""

import numpy as np
import pytest

from deploy.analysis.paired import compare_images
from deploy.analysis.pictures import FALSE_ALARM, MISSED, RIGHT, error_map, error_picture
from deploy.analysis.scores import confusion, dataset_scores, scores_of
from deploy.bundle.manifest import ClassInfo
from deploy.errors import UserError
from deploy.evaluation.segmentation_metrics import SegmentationMetrics

CLASSES = 4


def made_up(seed, wrong=0.3):
    """Prediction, label (of classes 0 to 2) and valid 20×30."""
    random = np.random.default_rng(seed)
    label = random.integers(0, CLASSES - 1, (20, 30)).astype(np.uint8)
    prediction = np.where(random.random((20, 30)) < wrong, random.integers(0, CLASSES - 1, (20, 30)), label)
    prediction[0, :5] = 255
    return prediction.astype(np.uint8), label, random.random((20, 30)) < 0.9


def matrices(wrong, images=60, first=0):
    return np.array([confusion(*made_up(seed, wrong), CLASSES) for seed in range(first, first + images)])


class TestScores:
    def test_are_those_of_the_metrics(self):
        metrics = SegmentationMetrics(CLASSES)
        metrics.update(*made_up(0))
        expected, own = metrics.scores(), scores_of(matrices(0.3, images=1))
        np.testing.assert_array_equal(matrices(0.3, images=1)[0], metrics.confusion)
        assert own.miou[0] == pytest.approx(expected.miou)
        assert own.pixel_accuracy[0] == pytest.approx(expected.pixel_accuracy)
        for mine, theirs in ((own.iou, expected.iou), (own.f1, expected.f1)):
            np.testing.assert_allclose(mine[0], [np.nan if one is None else one for one in theirs])

    def test_of_a_data_set_are_those_of_all_images(self):
        metrics = SegmentationMetrics(CLASSES)
        for seed in range(5):
            metrics.update(*made_up(seed))
        assert dataset_scores(matrices(0.3, images=5)).miou[0] == pytest.approx(metrics.scores().miou)

    def test_shares(self):
        _, label, valid = made_up(0)
        share = scores_of(matrices(0.3, images=1)).share[0]
        np.testing.assert_allclose(share, np.bincount(label[valid], minlength=CLASSES) / valid.sum())

    def test_without_valid_pixels_there_are_none(self):
        prediction, label, valid = made_up(0)
        scores = scores_of(confusion(prediction, label, valid & False, CLASSES)[None])
        assert np.isnan([scores.miou[0], scores.pixel_accuracy[0], *scores.share[0]]).all()


class TestComparison:
    def test_wins_losses_and_ties(self):
        good, bad = matrices(0.1, 10), matrices(0.6, 10)
        first = np.concatenate([good[:4], bad[4:6], good[6:]])
        second = np.concatenate([bad[:4], good[4:6], good[6:]])
        result = compare_images(first, second, resamples=100)
        assert (result.wins, result.losses, result.ties, result.images) == (4, 2, 4, 10)

    def test_interval_covers_the_difference_of_all_images(self):
        """About 80 % of the 80 % intervals from small samples cover the difference over a thousand images."""
        first, second = matrices(0.3, 1000), matrices(0.35, 1000, first=5000)
        truth = compare_images(first, second, resamples=2)
        covered = []
        for start in range(0, 1000, 20):
            rows = slice(start, start + 20)
            one = compare_images(first[rows], second[rows], resamples=400, confidence=0.8)
            covered.append(
                (
                    one.mean.low <= truth.mean.value <= one.mean.high,
                    one.dataset.low <= truth.dataset.value <= one.dataset.high,
                )
            )
        assert (np.abs(np.mean(covered, axis=0) - 0.8) < 0.2).all()

    def test_mean_interval_is_that_of_a_loop(self):
        first, second = matrices(0.3), matrices(0.35)
        difference = scores_of(first).miou - scores_of(second).miou
        random = np.random.default_rng(1)
        means = [random.choice(difference, 60).mean() for _ in range(10_000)]
        low, high = np.percentile(means, [2.5, 97.5])
        ours = compare_images(first, second).mean
        assert ours.value == pytest.approx(difference.mean())
        np.testing.assert_allclose([ours.low, ours.high], [low, high], atol=0.05 * (high - low))

    def test_dataset_interval_is_that_of_a_loop(self):
        first, second = matrices(0.3), matrices(0.5)
        random, values = np.random.default_rng(1), []
        for _ in range(2000):
            rows = random.integers(0, 60, 60)
            values.append(dataset_scores(first[rows]).miou[0] - dataset_scores(second[rows]).miou[0])
        low, high = np.percentile(values, [2.5, 97.5])
        ours = compare_images(first, second).dataset
        assert ours.value == pytest.approx(dataset_scores(first).miou[0] - dataset_scores(second).miou[0])
        np.testing.assert_allclose([ours.low, ours.high], [low, high], atol=0.15 * (high - low))
        assert ours.low > 0

    def test_depends_on_the_seed_alone(self):
        first, second = matrices(0.3), matrices(0.4)
        one, same, other = (compare_images(first, second, seed=seed) for seed in (3, 3, 4))
        assert one == same != other

    def test_a_model_against_itself_ties(self):
        result = compare_images(matrices(0.3), matrices(0.3), resamples=50)
        assert result.ties == 60
        assert (result.mean.low, result.dataset.high) == (0, 0)

    def test_images_without_valid_pixels_are_left_out(self):
        first, second = matrices(0.3), matrices(0.4)
        first[:10] = second[:10] = 0
        assert compare_images(first, second, resamples=50).images == 50
        with pytest.raises(UserError, match="no image has a valid pixel"):
            compare_images(first[:10], second[:10])

    def test_other_shapes_are_refused(self):
        with pytest.raises(ValueError, match="shape"):
            compare_images(matrices(0.3), matrices(0.3, 10))


class TestPictures:
    image = np.full((2, 3, 3), 90, np.uint8)
    label = np.array([[1, 1, 0], [0, 1, 0]], np.uint8)
    prediction = np.array([[1, 0, 1], [0, 1, 255]], np.uint8)
    valid = np.array([[True] * 3, [True, False, True]])

    def test_colors_of_two_classes(self):
        drawn = error_map(self.image, self.label, self.prediction, self.valid, positive=1)
        dim = (30, 30, 30)
        expected = [[RIGHT, MISSED, FALSE_ALARM], [dim, (0, 0, 0), dim]]
        np.testing.assert_array_equal(drawn, expected)

    def test_wrong_pixels_of_many_classes(self):
        drawn = error_map(self.image, self.label, self.prediction, self.valid, positive=None)
        wrong = (drawn == FALSE_ALARM).all(axis=2)
        np.testing.assert_array_equal(wrong, [[False, True, True], [False, False, True]])

    def test_picture_has_a_panel_for_each_enlarged_until_captions_fit(self):
        classes = (ClassInfo("land", (9, 9, 9)), ClassInfo("water", (0, 0, 200)))
        names = [("a", self.prediction), ("b", self.label)]
        picture = error_picture(self.image, self.label, self.valid, names, classes, 1)
        times = (len(picture) - 18) // 2
        assert picture.shape == (2 * times + 18, 6 * (3 * times + 4), 3)
        assert picture.dtype == np.uint8
        assert (self.image == 90).all()
        image = picture[18:, : 3 * times]
        np.testing.assert_array_equal(image[::times, ::times], self.image)
        gap = picture[:18, 3 * times : 3 * times + 4]
        assert (gap == 255).all()  # no caption reaches its neighbor

    def test_an_image_wide_enough_is_not_enlarged(self):
        wide, classes = np.zeros((5, 200), np.uint8), (ClassInfo("land", (9, 9, 9)),)
        shown = error_picture(
            np.zeros((5, 200, 3), np.uint8), wide, wide == 0, [("student", wide)], classes, None
        )
        assert shown.shape == (5 + 18, 4 * (200 + 4), 3)
