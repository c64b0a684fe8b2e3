"""The training loop: its losses, gradients and checkpoints; batches without valid pixels change nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deploy.errors import UserError
from distill.data.loader import train_batches
from distill.data.sample import Sample
from distill.training.checkpoint import load_checkpoint, save_checkpoint
from distill.training.loop import prepared, train
from distill.training.parts import Part
from tests.distill.tiny import distillation, labels_loss, tiny_net
from tests.distill.training.small_training import SGD, trained, weights


def test_distillation_reaches_the_student_only(stage, accelerator):
    teacher = tiny_net(seed=9)
    before = weights(teacher)
    plain = trained(stage, SGD, accelerator)
    distilled = trained(replace(stage, folder=stage.folder / "kd"), SGD, accelerator, teacher=teacher)
    assert not torch.equal(plain, distilled)
    assert torch.equal(weights(teacher), before)
    tensors, _ = load_checkpoint(stage.folder / "kd" / "last.safetensors")
    assert {name.split(".")[1] for name in tensors} <= {"backbone", "classifier", "aux_head", "dropout"}
    assert len(tensors) == len(tiny_net().state_dict())


def test_the_total_is_the_weighted_sum_of_its_terms(stage, accelerator):
    stage = replace(stage, aux=0.3)
    network = tiny_net().train()
    lesson = distillation(tiny_net(seed=9), network, accelerator, "kl(t=3)", weight=0.7, schedule="cosine")
    terms = prepared(network, stage, SGD, accelerator, lesson).loss_terms(2, Part(_batch(stage)))
    weight = 0.7 * 0.5 * (1 + np.cos(np.pi * 2 / 8))
    torch.testing.assert_close(terms["loss"], terms["task"] + weight * terms["kd"] + 0.3 * terms["aux"])
    assert all(term > 0 for term in terms.values())


@pytest.mark.parametrize("task", ["ce", "focal + dice + gdice + tversky + lovasz + 0.1*boundary"])
def test_two_micro_batches_give_the_gradient_of_one_batch(stage, accelerator, task):
    """Without batch statistics and dropout, accumulation changes nothing, however many pixels of a part are valid."""
    stage = replace(stage, task_loss=labels_loss(task))
    stage.view.augment = None
    for index in range(10):
        valid = torch.ones(32, 32, dtype=torch.bool)
        valid[: 3 * index] = False
        label = torch.where(valid, torch.randint(0, 2, (32, 32)), 255)
        stage.view.cached.samples[index] = Sample(torch.randn(2, 32, 32), label, valid, str(index))

    def one(accumulate):
        network = tiny_net()
        network.dropout.p = 0.0
        network.backbone[1] = torch.nn.Identity()
        config = replace(SGD, steps=2, accumulate=accumulate, weight_decay=0.0)
        train(network, replace(stage, folder=stage.folder / str(accumulate)), config, accelerator)
        return weights(network)

    torch.testing.assert_close(one(2), one(1), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_all_void_batch_changes_nothing(stage, accelerator, accumulate):
    void = Sample(torch.zeros(2, 32, 32), torch.full((32, 32), 255), torch.zeros(32, 32).bool(), "void")
    stage.view.augment = None
    stage.view.cached.samples = dict.fromkeys(range(10), void)
    untouched = weights(tiny_net())
    assert torch.equal(
        trained(stage, replace(SGD, weight_decay=0.1, accumulate=accumulate), accelerator), untouched
    )


def test_a_non_finite_loss_names_the_images(stage, accelerator):
    bad = Sample(
        torch.full((2, 32, 32), torch.inf), torch.ones(32, 32).long(), torch.ones(32, 32).bool(), "scene-7"
    )
    stage.view.augment = None
    stage.view.cached.samples = dict.fromkeys(range(10), bad)
    with pytest.raises(UserError, match=r"tiny: the loss is nan on the batch scene-7"):
        trained(stage, SGD, accelerator)


def test_best_checkpoint_is_the_best_evaluation(stage, accelerator):
    scores = iter([0.3, 0.9, 0.5, 0.1])
    seen = []

    def evaluate(network):
        seen.append(weights(network).clone())
        return {"miou": next(scores)}

    config = replace(SGD, eval_every=2)
    network = tiny_net()
    train(network, replace(stage, evaluate=evaluate), config, accelerator)
    assert load_checkpoint(stage.folder / "best.safetensors")[1] == {"step": 4, "miou": 0.9}
    assert torch.equal(weights(network), seen[1])


def test_averaged_weights_are_the_running_mean(stage, accelerator, monkeypatch):
    seen = []

    def remember(path, tensors, meta):
        save_checkpoint(path, tensors, meta)
        if path.name == "last.safetensors":
            seen.append(tensors["model.classifier.weight"].clone())

    monkeypatch.setattr("distill.training.train_state.save_checkpoint", remember)
    network = tiny_net()
    train(network, stage, replace(SGD, steps=4, ema=0.2, checkpoint_every=1), accelerator)
    average = seen[0]  # the first update copies
    for count, weight in enumerate(seen[1:], start=1):
        decay = min(0.2, (1 + count) / (10 + count))
        average = decay * average + (1 - decay) * weight
    torch.testing.assert_close(network.classifier.weight, average)
    assert not torch.allclose(average, seen[-1])


def test_a_stage_does_not_depend_on_those_before_it(stage, tmp_path, accelerator):
    """An odd number of micro-batches before must not shift accumulation after."""
    config = replace(SGD, accumulate=2)
    alone = trained(stage, config, accelerator)
    trained(replace(stage, folder=tmp_path / "before"), replace(SGD, steps=3), accelerator)
    assert torch.equal(trained(replace(stage, folder=tmp_path / "after"), config, accelerator), alone)


def _batch(stage):
    return next(iter(train_batches(stage.view, 4, 0, 0, 1)))
