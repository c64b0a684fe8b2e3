"""The order of training images: a pure function of seed and step, with and without labels."""

from collections import Counter

import pytest

from distill.data.order import Order, step_indices


@pytest.mark.parametrize(("n", "batch_size"), [(10, 4), (7, 7), (3, 8), (1, 4)])
def test_every_epoch_has_every_index_once(n, batch_size):
    epochs = 5
    steps = -(-n * epochs // batch_size)
    stream = [key for step in range(steps) for key in step_indices(n, batch_size, 1, step)]
    assert len(stream) == steps * batch_size
    for epoch in range(epochs):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == [(epoch, index) for index in range(n)]


def test_order_differs_between_epochs_and_seeds():
    def order(seed, epoch):
        return [index for _, index in step_indices(50, 50, seed, epoch)]

    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
    assert order(0, 1) == order(0, 1)


@pytest.mark.parametrize(("share", "without"), [(0.5, 4), (0.3, 2), (0.1, 1), (0.9, 7)])
def test_every_batch_has_its_share_without_labels(share, without):
    order = Order(labeled=5, unlabeled=9, share=share)
    for step in range(20):
        indices = [index for _, index in order.keys(8, 0, step)]
        assert sum(index >= 5 for index in indices) == order.unlabeled_of(8) == without
        assert max(indices) < 14


def test_images_with_and_without_labels_have_epochs_of_their_own():
    order = Order(labeled=4, unlabeled=6, share=0.5)
    keys = [key for step in range(6) for key in order.keys(4, 3, step)]
    labeled, others = ([key for key in keys if (key[1] >= 4) == kind] for kind in (False, True))
    assert Counter(labeled) == {(epoch, index): 1 for epoch in range(3) for index in range(4)}
    assert Counter(others) == {(epoch, 4 + index): 1 for epoch in range(2) for index in range(6)}


def test_the_parts_of_a_batch_have_about_equally_many():
    order = Order(labeled=100, unlabeled=100, share=0.25)
    unlabeled = [index >= 100 for _, index in order.keys(16, 0, 0)]
    assert [sum(unlabeled[part : part + 4]) for part in range(0, 16, 4)] == [1, 1, 1, 1]


def test_without_such_images_the_order_is_the_usual_one():
    assert Order(10, share=0.5).keys(4, 1, 7) == step_indices(10, 4, 1, 7)
