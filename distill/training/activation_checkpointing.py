"""Activation checkpointing: recompute activations in the backward pass instead of storing them (arXiv:1604.06174)."""

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
    """Within this context, a training step of `network` stores only the inputs of the blocks of its backbone.

    The backward pass recomputes the activations of a block: with the same dropout, and without updating the running
    statistics of its norms again. Gradients and weights are those of ordinary training. The context restores the
    network at its end, but not copies made within it (`copy.deepcopy`), so make copies outside.

    Args:
        network: has a `backbone` with blocks in an `nn.Sequential`.
        enabled: False makes the context do nothing.

    Raises:
        UserError: the backbone has no such blocks.
    """
    blocks = _blocks(getattr(network, "backbone", nn.Identity())) if enabled else []
    if enabled and not blocks:
        raise UserError(
            f"{type(network).__name__}: its backbone has no blocks in sequence to recompute;"
            " leave out --*.checkpoint-activations"
        )
    for block in blocks:
        block.forward = _recomputing(block, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # uncovers the method of the class


def _blocks(module: nn.Module) -> list[nn.Module]:
    """The outermost composite modules in an `nn.Sequential`, such as residual blocks."""
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
    """Within this context, norms use the same positions as in the forward pass; changes of buffers are undone."""
    kept = [(module, dict(module._buffers)) for module in block.modules()]
    for module, buffers in kept:
        module._buffers.update({name: b if b is None else b.clone() for name, b in buffers.items()})
    try:
        with norms:
            yield
    finally:
        for module, buffers in kept:
            module._buffers.update(buffers)
