"""Activations recomputed in the backward pass: the same training in less memory."""

import copy
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from deploy.errors import UserError
from distill.config import AugmentConfig, DataConfig, TrainConfig
from distill.data.train_view import TrainView
from distill.tasks.registry import open_splits
from distill.training.activation_checkpointing import checkpointed
from distill.training.loop import train
from distill.training.stage import Stage
from teacher.pspnet import PSPNet
from tests.distill.tiny import CE, tiny_net

BACKBONES = ("resnet18", "mobilenetv3_small_050", "efficientnet_lite0")


def new_network(backbone, seed=0):
    torch.manual_seed(seed)
    return PSPNet(backbone, 2, 3, output_stride=16, head_channels=16)


def two_steps(network, enabled):
    """Everything of the network after two steps, and the gradients of the second."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    images = torch.randn(2, 2, 2, 64, 64, generator=torch.Generator().manual_seed(1))
    network.train()
    with checkpointed(network, enabled):
        for step, image in enumerate(images):
            torch.manual_seed(step)
            optimizer.zero_grad()
            output = network(image)
            (output.logits.square().mean() + output.aux.square().mean()).backward()
            optimizer.step()
    return network.state_dict(), [parameter.grad for parameter in network.parameters()]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_weights_statistics_and_gradients_are_those_of_ordinary_training(backbone):
    plain, plain_gradients = two_steps(new_network(backbone), enabled=False)
    again, gradients = two_steps(new_network(backbone), enabled=True)
    assert list(again) == list(plain)
    for name, value in plain.items():
        assert torch.equal(again[name], value), name
    assert all(map(torch.equal, gradients, plain_gradients))
    assert again["backbone.bn1.num_batches_tracked"] == 2


def test_dropout_within_a_block_is_the_same_in_both_passes():
    def step(enabled):
        network = new_network("resnet18")
        network.backbone["layer2"][1].drop_block = nn.Dropout(0.5)
        return two_steps(network, enabled)[0]

    plain, again = step(False), step(True)
    assert all(torch.equal(again[name], plain[name]) for name in plain)


def kept_bytes(network, enabled):
    """Bytes that autograd stores between the passes, each piece of memory counted once."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        alive.append(tensor)
        return tensor

    alive = [*network.parameters()]
    with checkpointed(network, enabled), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        network.train()(torch.randn(2, 2, 96, 96))
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    return sum(size for pointer, size in kept.items() if pointer not in weights)


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenetv3_small_050"])
def test_less_memory_is_held_between_the_passes(backbone):
    network = new_network(backbone)
    assert kept_bytes(network, enabled=True) < 0.7 * kept_bytes(network, enabled=False)


def test_no_trace_is_left_even_after_an_error():
    network = new_network("mobilenetv3_small_050")
    before = [dict(vars(module)) for module in network.modules()]
    with pytest.raises(RuntimeError, match="stop"), checkpointed(network):
        raise RuntimeError("stop")
    assert [dict(vars(module)) for module in network.modules()] == before
    copy.deepcopy(network)


def test_evaluation_within_is_untouched():
    network = new_network("mobilenetv3_small_050").eval()
    image = torch.randn(1, 2, 64, 64)
    expected = network(image).logits
    with checkpointed(network), torch.no_grad():
        assert torch.equal(network(image).logits, expected)


def test_a_backbone_without_blocks_is_refused():
    with pytest.raises(UserError, match="TinyNet: its backbone has no blocks"), checkpointed(tiny_net()):
        pass


def test_the_training_loop_does_it(tmp_path):
    """With averaged weights, whose network is a copy, and two micro-batches."""
    splits = open_splits(DataConfig("synthetic", size=(64, 64), synthetic_counts=(4, 1, 1)))
    view = TrainView(
        splits.train,
        size=(64, 64),
        augment=AugmentConfig(crop=(64, 64)),
        mean=(-12.0, -19.0),
        optical=False,
    )
    mean, std = torch.tensor([-12.0, -19.0]).view(-1, 1, 1), torch.full((2, 1, 1), 5.0)

    def trained(config, name):
        network = new_network("mobilenetv3_small_050")
        stage = Stage(name, tmp_path / name, view, mean, std, CE, seed=0)
        train(network, stage, config, Accelerator(cpu=True))
        return network.state_dict()

    config = TrainConfig(steps=2, batch_size=4, accumulate=2, ema=0.5)
    plain = trained(config, "plain")
    again = trained(replace(config, checkpoint_activations=True), "checkpointed")
    assert all(torch.equal(again[name], value) for name, value in plain.items())
