"""Optimisers in one fused pass, and the memory layout that they trust in."""

import pytest
import torch

from distill.checkpoint import optimizer_tensors, restore_optimizer
from distill.config import TrainConfig
from distill.optim import build_optimizer
from tests.distill.tiny import tiny_net


def config(kind):
    return TrainConfig(steps=1, optimizer=kind, lr=0.05, weight_decay=0.1)


def weights(network):
    return torch.cat([value.flatten() for value in network.state_dict().values()])


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_one_pass_gives_what_many_give(kind):
    def trained(fused):
        network = tiny_net().to(memory_format=torch.channels_last)
        optimizer = build_optimizer(network, TrainConfig(steps=1, optimizer=kind, lr=0.05, weight_decay=0.1))
        assert optimizer.defaults["fused"]
        for group in optimizer.param_groups:
            group["fused"] = fused
        for step in range(3):
            images = torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(step))
            network.eval()(images).logits.square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        return weights(network)

    torch.testing.assert_close(trained(True), trained(False), rtol=1e-5, atol=1e-6)


def test_other_arithmetic_takes_the_ordinary_one():
    assert not build_optimizer(tiny_net().double(), config("sgd")).defaults["fused"]


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_what_is_restored_lies_in_memory_as_its_parameter(kind):
    """The fused kernels go through gradient, state and parameter in the order of memory, and do not ask."""
    network = tiny_net().to(memory_format=torch.channels_last)
    optimizer = build_optimizer(network, config(kind))
    network(torch.randn(2, 2, 16, 16)).logits.mean().backward()
    optimizer.step()
    loaded = {name: value.contiguous() for name, value in optimizer_tensors(optimizer).items()}
    restored = build_optimizer(network, config(kind))
    restore_optimizer(restored, loaded)
    for parameter, slots in restored.state.items():
        assert parameter.grad is None or parameter.grad.stride() == parameter.stride()
        for slot, value in slots.items():
            assert value.ndim == 0 or value.stride() == parameter.stride()
            assert torch.equal(value, optimizer.state[parameter][slot])
    assert not network.backbone[0].weight.is_contiguous()
