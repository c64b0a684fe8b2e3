"""Scores of single images and of all together."""

from types import SimpleNamespace

import numpy as np
import pytest

from deploy.errors import UserError
from deploy.evaluation.per_image import evaluate_images
from deploy.evaluation.segmentation_metrics import SegmentationMetrics
from deploy.tasks.segmentation.task import SegmentationScorer

SHAPE = (12, 16)


def scorer() -> SegmentationScorer:
    return SegmentationScorer(["a", "b", "c"])


def sample(seed: int, valid: bool = True):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 3, (*SHAPE, 1), np.uint8)
    return f"{seed}", image, rng.integers(0, 3, SHAPE, np.uint8), np.full(SHAPE, valid)


def model(image: np.ndarray) -> SimpleNamespace:
    return SimpleNamespace(labels=image[..., 0])


def test_the_total_is_that_of_all_pixels_and_each_image_has_its_own():
    samples = [sample(seed) for seed in range(4)]
    found = evaluate_images(model, samples, scorer)
    whole = SegmentationMetrics(3)
    for one, (name, image, label, valid) in zip(found.images, samples, strict=True):
        alone = SegmentationMetrics(3)
        for metrics in (whole, alone):
            metrics.update(image[..., 0], label, valid)
        assert one.name == name
        assert one.score == alone.scores().miou
        assert one.details["boundary F1"] == alone.scores().boundary_f1
    assert found.total.score() == whole.scores().miou
    scores = [one.score for one in found.images]
    assert [scores[index] for index in found.worst_first()] == sorted(scores)


def test_an_image_without_a_valid_pixel_has_no_score():
    found = evaluate_images(model, [sample(0), sample(1, valid=False)], scorer)
    assert found.images[1].score is None
    assert found.images[1].details == {}
    assert found.worst_first() == [0]


def test_nothing_to_evaluate():
    with pytest.raises(UserError, match="the data has no images"):
        evaluate_images(model, [], scorer)
    with pytest.raises(UserError, match="no image has a valid pixel"):
        evaluate_images(model, [sample(0, valid=False)], scorer)


def test_a_refused_image_is_named():
    def refuses(_: np.ndarray) -> SimpleNamespace:
        raise UserError("has 1 channels")

    with pytest.raises(UserError, match=r"^7: has 1 channels"):
        evaluate_images(refuses, [sample(7)], scorer)
