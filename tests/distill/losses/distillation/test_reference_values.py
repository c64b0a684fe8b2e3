"""Distillation losses compared with independent computations: scipy, scikit-learn, torch's own, slow loops."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import braycurtis
from scipy.special import log_softmax, softmax
from scipy.stats import entropy, pearsonr
from sklearn.metrics import jaccard_score, log_loss
from sklearn.metrics.pairwise import cosine_similarity
from torch.nn import functional as F

from distill.losses.distillation.common import Pixels
from tests.distill.losses.dense import CLASSES, compute, make_memory, make_pixels, normal

H, W = 4, 6


class Reference:
    """The scene image by image in numpy: maps C×M, weights M and their parts by class K×M over its M = 24 cells."""

    def __init__(self, scene):
        student, teacher, pixels = scene
        self.images = [
            (s.numpy().reshape(len(s), -1), t.numpy().reshape(len(t), -1), *self.cells(label, weight))
            for s, t, label, weight in zip(
                student, teacher, pixels.label.numpy(), pixels.weight.numpy(), strict=True
            )
        ]

    @staticmethod
    def cells(label, weight):
        stride = label.shape[0] // H
        total, parts = np.zeros((H, W)), np.zeros((CLASSES, H, W))
        for (y, x), value in np.ndenumerate(weight):
            total[y // stride, x // stride] += value / stride**2
            if value:
                parts[label[y, x], y // stride, x // stride] += value / stride**2
        return total.ravel(), parts.reshape(CLASSES, -1)

    def check(self, name, expected, scene, rel=1e-9, **options):
        wanted = torch.tensor([expected(*image) for image in self.images], dtype=torch.float64)
        torch.testing.assert_close(compute(name, *scene, **options), wanted, rtol=rel, atol=0)


@pytest.fixture
def reference(scene):
    return Reference(scene)


@pytest.fixture
def features():
    """The scene with 5 channels of the student and 7 of the teacher."""
    return normal(2, 5, H, W), normal(2, 7, H, W, seed=2), make_pixels()


def divergence(student, teacher, t, axis=0):
    p, q = (np.exp(log_softmax(x / t, axis=axis)) for x in (teacher, student))
    return t**2 * entropy(p, q, axis=axis)


def test_kl(scene, reference):
    reference.check("kl", lambda s, t, w, _: np.average(divergence(s, t, 3.0), weights=w), scene, t=3.0)


def test_hard(scene, reference):
    def expected(s, t, w, _):
        return log_loss(t.argmax(0), softmax(s, axis=0).T, sample_weight=w, labels=range(CLASSES))

    reference.check("hard", expected, scene)


def test_jaccard(scene, reference):
    def expected(s, t, w, _):
        p, q = softmax(t, axis=0), softmax(s, axis=0)
        apart = np.array([braycurtis(p[k], q[k], w=w) for k in np.unique(t.argmax(0)[w > 0])])
        return np.mean(2 * apart / (1 + apart))

    reference.check("jaccard", expected, scene)


def test_jaccard_of_sure_networks_is_the_iou_that_is_missing():
    student, teacher, pixels = normal(2, CLASSES, H, W), normal(2, CLASSES, H, W, seed=2), make_pixels()
    valid = Pixels(torch.ones_like(pixels.weight), pixels.label, CLASSES)
    iou = [
        jaccard_score(
            t.argmax(0).flatten(), s.argmax(0).flatten(), average=None, labels=t.argmax(0).unique()
        ).mean()
        for s, t in zip(student, teacher, strict=True)
    ]
    loss = compute("jaccard", 1e6 * student, 1e6 * teacher, valid)
    torch.testing.assert_close(loss, 1 - torch.tensor(iou))


@pytest.mark.parametrize("options", [{}, {"t": 1.5}])
def test_cwd(scene, reference, options):
    temperature = options.get("t", 4.0)

    def expected(s, t, w, _):
        p, q = ((w * np.exp(x / temperature))[:, w > 0] for x in (t, s))
        return temperature**2 * entropy(p, q, axis=1).mean()  # entropy() makes each sum to 1

    reference.check("cwd", expected, scene, **options)


@pytest.mark.parametrize("name", ["mse", "feature"])
def test_mean_squares(scene, reference, name):
    reference.check(name, lambda s, t, w, _: np.average(((s - t) ** 2).mean(0), weights=w), scene)


@pytest.mark.parametrize("name", ["mse", "feature"])
def test_mean_squares_are_those_of_torch(scene, name):
    student, teacher, pixels = scene
    everywhere = Pixels(torch.ones_like(pixels.weight), pixels.label, CLASSES)
    torch.testing.assert_close(
        compute(name, student, teacher, everywhere).mean(), F.mse_loss(student, teacher)
    )


def test_cosine(scene, reference):
    def expected(s, t, w, _):
        each = (s * t).sum(0) / np.linalg.norm(s, axis=0) / np.linalg.norm(t, axis=0)
        return 1 - np.average(each, weights=w)

    # the least squared norm of 1e-8 is beside squared norms of about 4
    reference.check("cosine", expected, scene, rel=1e-6)


def correlation(x, y, w):
    covariance = np.cov(x, y, aweights=w, ddof=0)
    return covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])


def test_dist(scene, reference):
    def expected(s, t, w, _):
        q, p = (softmax(x / 2.0, axis=0) for x in (s, t))
        over_classes = [1 - pearsonr(a, b).statistic for a, b in zip(q.T, p.T, strict=True)]
        over_cells = [1 - correlation(a, b, w) for a, b in zip(q, p, strict=True)]
        return 4 * (0.7 * np.average(over_classes, weights=w) + 0.2 * np.mean(over_cells))

    # the least variance of 1e-10 is beside a variance of probabilities above 1e-3
    reference.check("dist", expected, scene, rel=1e-6, t=2.0, inter=0.7, intra=0.2)


@pytest.mark.parametrize("radius", [1, 3])
def test_boundary(scene, radius):
    student, teacher, pixels = scene
    label, weight = pixels.label.numpy(), pixels.weight.numpy()
    wanted = []
    for n in range(2):
        parts = np.zeros((2, H, W))
        for y, x in zip(*np.nonzero(weight[n]), strict=True):
            near = (
                n,
                slice(max(0, y - radius), y + radius + 1),
                slice(max(0, x - radius), x + radius + 1),
            )
            edge = len(np.unique(label[near][weight[near] > 0])) > 1
            parts[int(edge), y // 4, x // 4] += weight[n, y, x]
        assert parts[0].any()
        assert parts[1].any()
        each = divergence(student[n].numpy(), teacher[n].numpy(), 2.0)
        wanted.append(0.3 * np.average(each, weights=parts[1]) + 0.7 * np.average(each, weights=parts[0]))
    loss = compute("boundary", student, teacher, pixels, t=2.0, radius=radius, edge=0.3)
    torch.testing.assert_close(loss, torch.tensor(wanted, dtype=torch.float64))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.5])
def test_attention(features, p):
    def expected(s, t, w, _):
        q, r = (np.sqrt(w) * (np.abs(x) ** p).sum(0) for x in (s, t))
        return np.sum((q / np.linalg.norm(q) - r / np.linalg.norm(r)) ** 2)

    Reference(features).check("at", expected, features, p=p)


def test_the_authors_attention_is_the_mean_over_cells(features):
    """Their code, for maps without void: `(at(x) - at(y)).pow(2).mean()` with `at = F.normalize(x.pow(2).mean(1))`."""
    student, teacher, pixels = features
    everywhere = replace(pixels, weight=torch.ones_like(pixels.weight))
    q, r = (F.normalize(x.pow(2).mean(1).flatten(1)) for x in (student, teacher))
    loss = compute("at", student, teacher, everywhere, mean=1)
    torch.testing.assert_close(loss.mean(), (q - r).pow(2).mean())


def test_the_authors_pairs_are_of_maxima_of_blocks(features):
    """Their code: maxima of 2×2 blocks, and the mean squared difference of the cosines of all pairs."""
    student, teacher, pixels = features
    everywhere = replace(pixels, weight=torch.ones_like(pixels.weight))
    side = 2
    blocks = [F.max_pool2d(x, side, ceil_mode=True).flatten(2) for x in (student, teacher)]
    similar = [np.stack([cosine_similarity(image.T) for image in x.numpy()]) for x in blocks]
    loss = compute("skd", student, teacher, everywhere, pool=side, maximum=1)
    np.testing.assert_allclose(loss.numpy(), ((similar[0] - similar[1]) ** 2).mean((1, 2)), rtol=1e-6)


def block_means(x, w, pool):
    """Weighted means of blocks C×B, and their weights B; blocks at the end may be incomplete."""
    x, w = x.reshape(-1, H, W), w.reshape(H, W)
    means, weights = [], []
    for y, x0 in itertools.product(range(0, H, pool), range(0, W, pool)):
        block = (slice(y, y + pool), slice(x0, x0 + pool))
        weights.append(w[block].sum())
        total = (x[(slice(None), *block)] * w[block]).sum((1, 2))
        means.append(total / weights[-1] if weights[-1] else total)
    return np.array(means).T, np.array(weights)


@pytest.mark.parametrize("pool", [1, 2, 4, 5, 9])
def test_pairwise(features, pool):
    def expected(s, t, w, _):
        (a, each), (b, _) = block_means(s, w, pool), block_means(t, w, pool)
        difference = (cosine_similarity(a.T) - cosine_similarity(b.T)) ** 2
        return np.average(difference, weights=np.outer(each, each))

    if pool == 9:  # one block, which equals itself
        assert compute("skd", *features, pool=pool).max() <= 1e-9
    else:
        Reference(features).check("skd", expected, features, rel=1e-6, pool=pool)


def test_ifvd(features):
    def expected(s, t, _, parts):
        total = 0.0
        for part in parts:
            if part.any():
                cosines = [
                    cosine_similarity(x.T, np.average(x, axis=1, weights=part)[None])[:, 0] for x in (s, t)
                ]
                total += np.sum(part * (cosines[0] - cosines[1]) ** 2)
        return total / parts.sum()

    Reference(features).check("ifvd", expected, features, rel=1e-6)


def test_ifvd_leaves_absent_classes_out(features):
    student, teacher, pixels = features
    more = Pixels(pixels.weight, pixels.label, CLASSES + 3)
    torch.testing.assert_close(
        compute("ifvd", student, teacher, more), compute("ifvd", student, teacher, pixels)
    )


@pytest.mark.parametrize("beta", [0.0, 0.1, 1.0])
def test_maps(scene, reference, beta):
    def expected(s, t, w, _):
        loss = F.smooth_l1_loss(torch.tensor(s), torch.tensor(t), reduction="none", beta=beta).numpy()
        return np.average(loss.mean(0), weights=w * (0.4 + 0.6 * np.clip(t[0], 0, 1)))

    reference.check("maps", expected, scene, beta=beta, quality=0.6)


def test_grasp_kl(scene, reference):
    def expected(s, t, w, _):
        student, teacher = ({"logits": torch.tensor(x[0])} for x in (s, t))
        kl = torch.distributions.kl_divergence(
            torch.distributions.Bernoulli(**teacher), torch.distributions.Bernoulli(**student)
        ).numpy()
        shape = F.smooth_l1_loss(torch.tensor(s[1:]), torch.tensor(t[1:]), reduction="none", beta=0.3).numpy()
        return np.average(kl, weights=w) + 2 * np.average(shape.mean(0), weights=w * (t[0] > 0))

    reference.check("grasp_kl", expected, scene, beta=0.3, geometry=2.0)


def test_cirkd(scene, reference):
    """A loop over images, cells and remembered embeddings."""
    memory = make_memory()
    remembered = [
        np.concatenate([queue[k, : min(int(count[k]), queue.shape[1])] for k in range(CLASSES)]).T
        for queue, count in (
            (memory.pixel_queue.numpy(), memory.pixel_count),
            (memory.region_queue.numpy(), memory.region_count),
        )
    ]
    assert all(x.shape[1] > 4 for x in remembered)

    def kl(s, t, s_others, t_others, weights):
        q, p = (
            weights * np.exp(cosine_similarity(a[None], b.T)[0] / 0.3)
            for a, b in ((s, s_others), (t, t_others))
        )
        return entropy(p[weights > 0], q[weights > 0])

    def expected(s, t, w, _):
        cells = []
        for i in range(H * W):
            batch = np.mean([kl(s[:, i], t[:, i], s2, t2, w2) for s2, t2, w2, _ in reference.images])
            pixel, region = (kl(s[:, i], t[:, i], m, m, np.ones(m.shape[1])) for m in remembered)
            cells.append(0.8 * batch + 0.3 * pixel + 0.2 * region)
        return np.average(cells, weights=w)

    reference.check(
        "cirkd", expected, scene, rel=1e-6, memory=memory, t=0.3, batch=0.8, pixel=0.3, region=0.2
    )
