"""The memory of CIRKD: what enters, what leaves, and that it is saved."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from distill.losses.distillation import cirkd as cross_image
from distill.losses.distillation.cirkd import MemoryBank, cirkd
from distill.losses.distillation.common import Pixels
from tests.distill.losses.dense import CLASSES, VOID, make_memory, make_pixels, normal, without_weight


def one_cell(value, label=1):
    """An image of one cell, whose embedding is (cos value, sin value), of that class."""
    angle = torch.tensor(float(value))
    features = torch.stack([angle.cos(), angle.sin()]).view(1, 2, 1, 1)
    return features, Pixels(torch.ones(1, 1, 1), torch.full((1, 1, 1), label), 3)


def angles(queue):
    return torch.atan2(queue[:, 1], queue[:, 0]).round(decimals=3).tolist()


class TestQueue:
    def test_first_in_first_out(self):
        memory = MemoryBank(3, 2, pixels=3, regions=2)
        for value in (0.1, 0.2, 0.3, 0.4, 0.5):
            memory.update(*one_cell(value))
        assert sorted(angles(memory.pixel_queue[1])) == pytest.approx([0.3, 0.4, 0.5])
        assert sorted(angles(memory.region_queue[1])) == pytest.approx([0.4, 0.5])
        assert memory.pixel_count.tolist() == memory.region_count.tolist() == [0, 5, 0]
        memory.update(*one_cell(0.6))
        assert sorted(angles(memory.pixel_queue[1])) == pytest.approx([0.4, 0.5, 0.6])

    def test_a_batch_larger_than_the_queue_leaves_its_last_cells(self):
        memory = MemoryBank(3, 2, pixels=3, regions=2)
        images = [one_cell(value) for value in (0.1, 0.2, 0.3, 0.4, 0.5)]
        features = torch.cat([features for features, _ in images])
        memory.update(features, Pixels(torch.ones(5, 1, 1), torch.ones(5, 1, 1, dtype=torch.int64), 3))
        assert sorted(angles(memory.pixel_queue[1])) == pytest.approx([0.3, 0.4, 0.5])
        assert sorted(angles(memory.region_queue[1])) == pytest.approx([0.4, 0.5])

    def test_each_class_has_its_own_queue(self):
        memory = MemoryBank(3, 2, pixels=3, regions=3)
        memory.update(*one_cell(0.1, label=2))
        memory.update(*one_cell(0.2, label=0))
        assert angles(memory.pixel_queue[:, 0]) == pytest.approx([0.2, 0.0, 0.1])
        assert not memory.pixel_queue[1].any()

    def test_a_region_is_the_mean_of_its_class(self, scene):
        _, teacher, pixels = scene
        # at the features' own size, where a cell has one class
        pixels = Pixels(pixels.weight[:1, 2::4, 2::4], pixels.label[:1, 2::4, 2::4], CLASSES)
        memory = MemoryBank(CLASSES, CLASSES).double()
        memory.update(teacher[:1], pixels)
        embedding = F.normalize(teacher[0].flatten(1), dim=0)
        for k in range(CLASSES):
            weight = (pixels.weight * (pixels.label == k)).flatten()
            assert memory.region_count[k] == int(weight.any())
            torch.testing.assert_close(
                memory.region_queue[k, 0], F.normalize(embedding @ weight, dim=0), rtol=1e-6, atol=1e-6
            )

    def test_void_never_enters(self, scene):
        _, teacher, pixels = scene
        teacher[:, 0] = 0
        teacher.permute(1, 0, 2, 3)[(slice(None), *VOID)] = torch.tensor([1.0, 0, 0, 0]).double()[
            :, None, None, None
        ]
        memory = MemoryBank(CLASSES, CLASSES).double()
        for _ in range(5):
            memory.update(teacher, pixels)
        assert memory.pixel_count.sum() > 50
        assert not memory.pixel_queue[..., 0].any()
        assert not memory.region_queue[..., 0].any()
        memory.update(teacher, without_weight(pixels))
        assert not memory.pixel_queue[..., 0].any()

    def test_cells_are_drawn_uniformly(self):
        """Of a class with more cells than an image may add, each cell comes in as often as any other."""
        features = torch.eye(32).view(1, 32, 4, 8)
        pixels = Pixels(torch.ones(1, 4, 8), torch.zeros(1, 4, 8, dtype=torch.int64), 1)
        memory = MemoryBank(1, 32, pixels=3200)
        torch.manual_seed(0)
        for _ in range(200):
            memory.update(features, pixels)
        assert memory.pixel_count == 200 * cross_image.NEW_PIXELS
        times = memory.pixel_queue[0].sum(0)
        assert 70 <= times.min() <= times.max() <= 130  # 100 ± 4 standard deviations of 7

    def test_embeddings_have_length_1(self, scene):
        memory = make_memory()
        assert memory.pixel_count.sum() > 10
        for queue, count in (
            (memory.pixel_queue, memory.pixel_count),
            (memory.region_queue, memory.region_count),
        ):
            filled = torch.arange(queue.shape[1]) < count[:, None]
            torch.testing.assert_close(queue.norm(dim=2), filled.double(), rtol=1e-5, atol=0)


class TestState:
    def train(self, memory, steps, start=0):
        losses = []
        for step in range(start, start + steps):
            torch.manual_seed(step)
            student, teacher = normal(2, CLASSES, 4, 6, seed=step), normal(2, CLASSES, 4, 6, seed=100 + step)
            losses.append(cirkd(student, teacher, make_pixels(), memory=memory))
        return torch.stack(losses)

    def test_a_restored_memory_gives_the_same_losses(self):
        def fresh():
            return MemoryBank(CLASSES, CLASSES, pixels=40, regions=6)

        whole, first, second = fresh(), fresh(), fresh()
        expected = self.train(whole, 6)
        self.train(first, 3)
        second.load_state_dict(first.state_dict())
        assert self.train(second, 3, start=3).equal(expected[3:])
        assert not self.train(fresh(), 3, start=3).isclose(expected[3:]).any()
        for name, value in whole.state_dict().items():
            assert value.equal(second.state_dict()[name])

    def test_taken_in_after_the_loss_and_in_training_only(self, scene):
        student, teacher, pixels = scene
        memory = make_memory(filled=False)
        empty = cirkd(student, teacher, pixels, memory=memory)
        assert not memory.pixel_count.any()
        assert cirkd(student, teacher, pixels, memory=memory.train()).equal(empty)
        assert memory.pixel_count.any()
        assert (cirkd(student, teacher, pixels, memory=memory) > empty).all()

    def test_only_the_teacher_is_remembered(self, scene):
        student, teacher, pixels = scene
        memories = [make_memory(filled=False).train() for _ in range(2)]
        for memory, features in zip(memories, (student, -3 * student), strict=True):
            torch.manual_seed(0)
            cirkd(features, teacher, pixels, memory=memory)
        assert memories[0].pixel_queue.equal(memories[1].pixel_queue)
        assert not memories[0].pixel_queue.requires_grad

    def test_backward_after_the_memory_has_changed(self, scene):
        student, teacher, pixels = scene
        memory = make_memory().train()
        student.requires_grad_()
        before, _ = cirkd(student, teacher, pixels, memory=memory), memory.update(teacher, pixels)
        before.sum().backward()
        gradient, student.grad = student.grad, None
        cirkd(student, teacher, pixels, memory=make_memory()).sum().backward()
        torch.testing.assert_close(gradient, student.grad)

    def test_empty_memory_contributes_nothing(self, scene):
        student, teacher, pixels = scene
        loss = cirkd(
            student.requires_grad_(),
            teacher,
            pixels,
            memory=make_memory(filled=False),
            batch=0,
            pixel=1,
            region=1,
        )
        loss.sum().backward()
        assert not loss.any()
        assert not student.grad.any()


class TestSampling:
    @pytest.fixture
    def large(self):
        """More cells and remembered embeddings than are compared; half of each image void."""
        pixels = Pixels(torch.ones(2, 24, 40), torch.arange(960).view(1, 24, 40).expand(2, -1, -1) % 3, 3)
        pixels.weight[:, :12] = 0
        memory = MemoryBank(3, 8, pixels=1000, regions=4)
        for seed in range(30):
            memory.update(normal(2, 8, 24, 40, seed=seed).float(), pixels)
        return (
            normal(2, 8, 24, 40, seed=98).float(),
            normal(2, 8, 24, 40, seed=99).float(),
            pixels,
            memory.eval(),
        )

    def compute(self, large, seed, **options):
        student, teacher, pixels, memory = large
        torch.manual_seed(seed)
        return cirkd(student, teacher, pixels, memory=memory, **options)

    def test_follows_the_seed(self, large):
        assert self.compute(large, 0).equal(self.compute(large, 0))
        assert not self.compute(large, 0).isclose(self.compute(large, 1)).any()

    @pytest.mark.parametrize("part", ["batch", "pixel"])
    def test_estimates_the_whole(self, large, part, monkeypatch):
        only = {"batch": 0, "pixel": 0, "region": 0, part: 1, "t": 0.5}
        drawn = torch.stack([self.compute(large, seed, **only) for seed in range(10)]).mean(0)
        monkeypatch.setattr(cross_image, "CELLS", 10_000)
        monkeypatch.setattr(cross_image, "CONTRASTS", 10_000)
        torch.testing.assert_close(drawn, self.compute(large, 0, **only), rtol=0.02, atol=0)

    def test_void_cells_are_drawn_last(self, large):
        student, teacher, pixels, memory = large
        weight = torch.zeros_like(pixels.weight)
        weight[:, 20, :30] = 1  # fewer than are drawn: all of them are
        few = replace(pixels, weight=weight)
        cut = Pixels(weight[:, 20:21, :30], pixels.label[:, 20:21, :30], 3)
        torch.testing.assert_close(
            cirkd(student, teacher, few, memory=memory, pixel=0),
            cirkd(student[:, :, 20:21, :30], teacher[:, :, 20:21, :30], cut, memory=memory, pixel=0),
        )
