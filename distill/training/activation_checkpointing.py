"""Training in less memory: activations are computed again in the backward pass instead of kept (arXiv:1604.06174)."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from deploy.errors import UserError
from distill.training.sync_norm import norms_again


@contextmanager
def checkpointed(network: nn.Module, enabled: bool = True) -> Iterator[None]:
    """Within this context a training step of `network` keeps only what enters each block of its backbone.

    What a block keeps for its gradient is computed once more when the backward pass comes to it: with the same dropout,
    and without moving the running statistics of its norms again. Gradients and weights are those of ordinary training.
    Afterwards the network is as it was; a copy made within the context is not (`copy.deepcopy`), so make it outside.

    Raises:
        UserError: the network has no backbone of blocks in sequence.
    """
    blocks = _blocks(getattr(network, "backbone", nn.Identity())) if enabled else []
    if enabled and not blocks:
        raise UserError(
            f"{type(network).__name__}: its backbone has no blocks in sequence to compute again;"
            " leave out --*.checkpoint-activations"
        )
    for block in blocks:
        block.forward = _recomputing(block, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # the class has it still


def _blocks(module: nn.Module) -> list[nn.Module]:
    """The outermost composite modules that stand in an `nn.Sequential`: residual blocks and the like."""
    found = []
    for child in module.children():
        composite = next(child.children(), None) is not None
        if isinstance(module, nn.Sequential) and composite and not isinstance(child, nn.Sequential):
            found.append(child)
        else:
            found += _blocks(child)
    return found


def _recomputing(block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _again(block, norms_again())

    def run(*inputs: Any) -> Any:
        if not (block.training and torch.is_grad_enabled()):
            return forward(*inputs)
        return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts)

    return run


@contextmanager
def _again(block: nn.Module, norms: AbstractContextManager[Any]) -> Iterator[None]:
    """The norms of a block count here what they did before, and what moves their running statistics is forgotten."""
    kept = [(module, dict(module._buffers)) for module in block.modules()]
    for module, buffers in kept:
        module._buffers.update({name: b if b is None else b.clone() for name, b in buffers.items()})
    try:
        with norms:
            yield
    finally:
        for module, buffers in kept:
            module._buffers.update(buffers)
