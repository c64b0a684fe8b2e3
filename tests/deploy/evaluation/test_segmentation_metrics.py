"""Metrics against scikit-learn, a brute-force boundary F1, and values worked out by hand."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from deploy.errors import UserError
from deploy.evaluation.segmentation_metrics import SegmentationMetrics

VOID = 255


def score(prediction, label, num_classes, valid=None, **options):
    counts = SegmentationMetrics(num_classes, **options)
    counts.update(np.asarray(prediction, np.uint8), np.asarray(label, np.uint8), valid)
    return counts.scores()


def random_pair(seed, num_classes, shape=(12, 17)):
    """Blobs rather than noise, so that there are both boundaries and interiors; some void in the label."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, num_classes, (2, *(-(-side // 4) for side in shape)), dtype=np.uint8)
    label, prediction = coarse.repeat(4, 1).repeat(4, 2)[:, : shape[0], : shape[1]]
    prediction = np.where(rng.random(shape) < 0.6, label, prediction)
    return prediction, np.where(rng.random(shape) < 0.1, np.uint8(VOID), label)


@pytest.mark.parametrize("seed", range(5))
def test_equals_scikit_learn(seed):
    classes = np.arange(4)
    prediction, label = random_pair(seed, len(classes))
    counts = SegmentationMetrics(len(classes))
    counts.update(prediction, label)
    scores = counts.scores()
    pair = label[label != VOID], prediction[label != VOID]
    options = {"labels": classes, "average": None, "zero_division": 0}

    np.testing.assert_array_equal(counts.confusion[:, :-1], sklearn.confusion_matrix(*pair, labels=classes))
    np.testing.assert_allclose(np.array(scores.iou, float), sklearn.jaccard_score(*pair, **options))
    np.testing.assert_allclose(np.array(scores.precision, float), sklearn.precision_score(*pair, **options))
    np.testing.assert_allclose(np.array(scores.recall, float), sklearn.recall_score(*pair, **options))
    np.testing.assert_allclose(np.array(scores.f1, float), sklearn.f1_score(*pair, **options))
    assert scores.miou == pytest.approx(sklearn.jaccard_score(*pair, labels=classes, average="macro"))
    assert scores.pixel_accuracy == pytest.approx(sklearn.accuracy_score(*pair))


def test_classes_in_label_or_prediction_only():
    # class 0: right once; 1: never predicted; 2: predicted but not there; 3: in neither
    scores = score([[0, 2]], [[0, 1]], num_classes=4)
    assert scores.iou == (1.0, 0.0, 0.0, None)
    assert scores.precision == (1.0, 0.0, 0.0, None)
    assert scores.recall == (1.0, 0.0, 0.0, None)
    assert scores.miou == pytest.approx(1 / 3)


def test_predicted_void_is_a_miss():
    scores = score([[0, VOID, 1]], [[0, 0, 1]], num_classes=2)
    assert scores.iou == (0.5, 1.0)
    assert scores.precision == (1.0, 1.0)
    assert scores.pixel_accuracy == pytest.approx(2 / 3)


def test_anything_goes_where_not_valid():
    label = np.array([[0, 1, -(2**40), 2**40]])
    valid = (label >= 0) & (label < 2)
    counts = SegmentationMetrics(2)
    counts.update(label, label, valid)
    assert counts.scores() == score([[0, 1, 9, 9]], [[0, 1, VOID, VOID]], 2)


def test_all_void_image_changes_nothing():
    counts = SegmentationMetrics(3)
    counts.update(*random_pair(0, 3))
    before = counts.scores()
    void = np.full((8, 8), VOID, np.uint8)
    counts.update(np.zeros((8, 8), np.uint8), void)
    counts.update(void, void, np.zeros((8, 8), bool))
    assert counts.scores() == before


def test_no_valid_pixel_at_all_is_an_error():
    with pytest.raises(UserError, match="no image has a valid pixel"):
        score([[0]], [[VOID]], num_classes=2)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_label_out_of_range_is_named(dtype):
    label = np.array([[0, 7]], dtype)
    with pytest.raises(UserError, match=r"label id 7 is out of range: there are 5 classes"):
        SegmentationMetrics(5).update(np.zeros((1, 2), np.uint8), label)


def test_negative_label_is_named():
    with pytest.raises(UserError, match="label id -1 is out of range"):
        SegmentationMetrics(5).update(np.zeros((1, 2), np.uint8), np.array([[0, -1]]))


def test_prediction_out_of_range_is_named():
    with pytest.raises(UserError, match="predicted id 9 is out of range: there are 2 classes"):
        score([[9]], [[0]], num_classes=2)


def test_sizes_that_differ_are_named():
    with pytest.raises(UserError, match=r"prediction \(2, 3\), label \(2, 4\)"):
        score(np.zeros((2, 3)), np.zeros((2, 4)), num_classes=2)


def test_inputs_stay_as_they_were():
    prediction, label = random_pair(1, 3)
    prediction[0, 0] = VOID
    copies = prediction.copy(), label.copy()
    SegmentationMetrics(3).update(prediction, label)
    np.testing.assert_array_equal(prediction, copies[0])
    np.testing.assert_array_equal(label, copies[1])


def test_batch_and_merged_shards_equal_one_by_one():
    pairs = [random_pair(seed, 3) for seed in range(4)]
    single, batched, left, right = (SegmentationMetrics(3) for _ in range(4))
    for pair in pairs:
        single.update(*pair)
    batched.update(*map(np.stack, zip(*pairs, strict=True)))
    left.update(*pairs[0])
    for pair in pairs[1:]:
        right.update(*pair)
    left.merge(right)
    assert single.scores() == batched.scores() == left.scores()


def test_merging_other_classes_is_refused():
    with pytest.raises(ValueError, match="cannot be merged"):
        SegmentationMetrics(3).merge(SegmentationMetrics(4))


# --- boundary F1 ---


def brute_force_boundary_f1(prediction, label, valid, num_classes, fraction):
    """The definition, pixel by pixel."""
    height, width = label.shape
    tolerance = math.ceil(fraction * math.hypot(height, width))

    def boundary(ids, k):
        found = []
        for y, x in itertools.product(range(height), range(width)):
            if ids[y, x] != k or not valid[y, x]:
                continue
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= v < height and 0 <= u < width and valid[v, u] and ids[v, u] != k:
                    found.append((y, x))
                    break
        return found

    def share_near(points, others):
        near = [any(math.dist(p, q) <= tolerance for q in others) for p in points]
        return sum(near) / len(near) if near else 0.0

    scores = []
    for k in range(num_classes):
        predicted, labeled = boundary(prediction, k), boundary(label, k)
        if predicted or labeled:
            precision, recall = share_near(predicted, labeled), share_near(labeled, predicted)
            total = precision + recall
            scores.append(2 * precision * recall / total if total else 0.0)
    return sum(scores) / len(scores) if scores else 1.0


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    fraction=st.sampled_from([0.0, 0.0075, 0.2, 0.4]),
)
def test_boundary_f1_equals_brute_force(seed, shape, fraction):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, shape, dtype=np.uint8)
    prediction = np.where(rng.random(shape) < 0.7, label, rng.choice([0, 1, 2, VOID], shape)).astype(np.uint8)
    valid = rng.random(shape) < 0.9
    valid[0, 0] = True
    expected = brute_force_boundary_f1(prediction, label, valid, 3, fraction)
    scores = score(prediction, label, 3, valid, boundary_tolerance=fraction)
    assert scores.boundary_f1 == pytest.approx(expected)


def test_boundary_f1_of_more_classes_than_bits_in_a_word():
    rng = np.random.default_rng(0)
    label, prediction = rng.integers(0, 150, (2, 12, 12), dtype=np.uint8)
    prediction = np.where(rng.random(label.shape) < 0.5, label, prediction)
    expected = brute_force_boundary_f1(prediction, label, np.ones(label.shape, bool), 150, 0.0075)
    assert score(prediction, label, 150).boundary_f1 == pytest.approx(expected)


def halves(at, height=10, width=30):
    """Class 1 right of column `at`."""
    return np.broadcast_to(np.arange(width) >= at, (height, width)).astype(np.uint8)


def test_boundary_within_the_tolerance_is_right_and_beyond_is_wrong():
    # diagonal 31.6, fraction 0.07: ceil(2.2) = 3 pixels
    assert score(halves(13), halves(10), 2, boundary_tolerance=0.07).boundary_f1 == 1.0
    assert score(halves(14), halves(10), 2, boundary_tolerance=0.07).boundary_f1 == 0.0


def test_boundary_f1_by_hand():
    # Label: an edge between columns 9 and 10. Prediction: the same, and a false single pixel far away, which adds
    # 1 boundary pixel to class 0 and, around it, 4 to class 1.
    label, prediction = halves(10), halves(10)
    prediction[5, 20] = 0
    # class 0: precision 10/11, recall 1; class 1: precision 10/14, recall 1
    expected = np.mean([2 * (10 / 11) / (1 + 10 / 11), 2 * (10 / 14) / (1 + 10 / 14)])
    assert score(prediction, label, 2).boundary_f1 == pytest.approx(expected)


def test_frame_and_void_make_no_boundary():
    label = np.zeros((10, 10), np.uint8)
    label[:, 5] = VOID
    label[:, 6:] = 1
    counts = SegmentationMetrics(2)
    counts.update(np.where(label == VOID, 0, label), label)
    assert not counts.boundary.any()
    assert counts.scores().boundary_f1 == 1.0


def test_boundary_missed_altogether_scores_zero():
    assert score(np.zeros((10, 30)), halves(10), 2).boundary_f1 == 0.0
