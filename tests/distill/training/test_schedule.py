"""Learning rates over the steps of a training, and those of groups of parameters."""

import numpy as np
import pytest
import torch

from distill.config import TrainConfig
from distill.training.optim import Plateau, build_optimizer, learning_rate, set_learning_rate
from distill.training.step_module import TrainStepModule
from tests.distill.tiny import CE, tiny_net


class TestSchedule:
    def test_poly_is_the_papers(self):
        config = TrainConfig(steps=100, schedule="poly", lr=0.01)
        for step in (0, 50, 99):
            assert learning_rate(config, step) == pytest.approx(0.01 * (1 - step / 100) ** 0.9)

    def test_cosine_equals_torch(self):
        config = TrainConfig(steps=50, schedule="cosine", lr=0.1)
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
        for step in range(50):
            assert learning_rate(config, step) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
            optimizer.step()
            schedule.step()

    def test_warm_up_is_linear_and_reaches_the_rate(self):
        config = TrainConfig(steps=100, lr=1.0, warmup=4)
        assert [learning_rate(config, step) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]

    @pytest.mark.parametrize(("factor", "patience"), [(0.5, 3), (0.1, 0), (0.3, 1)])
    def test_plateau_decides_as_torch(self, factor, patience):
        config = TrainConfig(
            steps=1, schedule="plateau", plateau_factor=factor, plateau_patience=patience, eval_every=1
        )
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        options = {"mode": "max", "factor": factor, "patience": patience, "threshold": 0.0, "eps": 0.0}
        torchs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)
        ours, shares = Plateau(), []
        for score in np.random.default_rng(0).choice([0.1, 0.2, 0.3, 0.4, 0.5], 40).cumsum() % 1.0:
            ours.observe(score, config)
            torchs.step(score)
            shares.append(ours.share)
            assert ours.share == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        assert len(set(shares)) > 2

    def test_a_plateau_keeps_the_rate_of_the_warm_up(self):
        config = TrainConfig(steps=100, schedule="plateau", lr=1.0, warmup=4, eval_every=1)
        assert [learning_rate(config, step) for step in (0, 1, 2, 3, 4, 99)] == [0.25, 0.5, 0.75, 1, 1, 1]

    def test_heads_learn_faster_and_norms_do_not_decay(self):
        config = TrainConfig(steps=1, optimizer="sgd", lr=0.01, head_lr_factor=10, weight_decay=0.5)
        network = tiny_net()
        optimizer = build_optimizer(TrainStepModule(network, None, CE), config)
        set_learning_rate(optimizer, 0.01)
        by_name = {
            id(p): (group["lr"], group["weight_decay"])
            for group in optimizer.param_groups
            for p in group["params"]
        }
        assert by_name[id(network.backbone[0].weight)] == (0.01, 0.5)
        assert by_name[id(network.backbone[1].weight)] == (0.01, 0.0)
        assert by_name[id(network.classifier.weight)] == (pytest.approx(0.1), 0.5)
        assert by_name[id(network.classifier.bias)] == (pytest.approx(0.1), 0.0)
