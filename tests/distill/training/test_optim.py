"""Optimizers in one fused pass, and the memory layout that they rely on."""

import pytest
import torch

from distill.config import TrainConfig
from distill.training.checkpoint import optimizer_tensors, restore_optimizer
from distill.training.optim import build_optimizer, set_learning_rate
from distill.training.step_module import TrainStepModule
from student.zoo import build_network
from tests.distill.tiny import CE, tiny_net


def config(kind):
    return TrainConfig(steps=1, optimizer=kind, lr=0.05, weight_decay=0.1)


def weights(network):
    return torch.cat([value.flatten() for value in network.state_dict().values()])


def test_fused_and_separate_steps_agree():
    def trained(fused):
        network = tiny_net().to(memory_format=torch.channels_last)
        optimizer = build_optimizer(network, config("adamw"))
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


def test_float64_uses_the_unfused_optimizer():
    assert not build_optimizer(tiny_net().double(), config("adamw")).defaults["fused"]


def test_sgd_survives_a_first_step_that_a_loss_scaler_skips():
    network = tiny_net().train()
    optimizer = build_optimizer(network, config("sgd"))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    for factor in (torch.inf, 1.0, 1.0):
        loss = network(torch.ones(2, 2, 16, 16)).logits.square().mean() * factor
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())


@pytest.mark.parametrize("arch", ["unet", "ggcnn", "grconvnet", "edge-nano", "pspnet/resnet18"])
def test_heads_alone_learn_at_their_rate(arch):
    step_module = TrainStepModule(build_network(arch, 2, 4), None, CE)
    made = TrainConfig(steps=1, head_lr_factor=10)
    factor = {
        id(parameter): group["lr_factor"]
        for group in build_optimizer(step_module, made).param_groups
        for parameter in group["params"]
    }
    rates = {name: factor[id(parameter)] for name, parameter in step_module.network.named_parameters()}
    assert rates["classifier.weight"] == 10
    body = [rate for name, rate in rates.items() if name.startswith(("backbone.", "encoder.", "layer3."))]
    assert body
    assert set(body) == {1.0}


def test_rmsprop_is_torchs_with_its_groups():
    """One step by hand: the mean square, the decay of weights in the gradient, and the heads' own rate."""
    network = tiny_net()
    made = TrainConfig(steps=1, optimizer="rmsprop", lr=0.05, weight_decay=0.1, head_lr_factor=10)
    step_module = TrainStepModule(network, None, CE)
    optimizer = build_optimizer(step_module, made)
    set_learning_rate(optimizer, 0.05)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    network.eval()(torch.randn(2, 2, 16, 16)).logits.square().mean().backward()
    optimizer.step()
    for name, rate, decay in (
        ("backbone.0.weight", 0.05, 0.1), ("backbone.0.bias", 0.05, 0), ("classifier.weight", 0.5, 0.1)
    ):  # fmt: skip
        parameter = network.get_parameter(name)
        assert parameter.grad is not None
        gradient = parameter.grad + decay * before[name]
        step = rate * gradient / (torch.sqrt(0.01 * gradient**2) + 1e-8)
        torch.testing.assert_close(parameter.detach(), before[name] - step)


@pytest.mark.parametrize("kind", ["sgd", "adamw", "rmsprop"])
def test_restored_state_has_the_memory_layout_of_its_parameter(kind):
    """The fused kernels read gradient, state and parameter in the order of memory, without checking it."""
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
    assert not network.get_parameter("backbone.0.weight").is_contiguous()
