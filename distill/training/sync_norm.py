"""Batch norm over the valid positions of the batches of all processes, on any device.

A `TorchFunctionMode` computes it in place of `F.batch_norm`. Modules, weights and running statistics do not change, so
networks are saved, averaged, transferred, folded and exported as usual. On a GPU without masks, timm's synchronized
modules are used instead, which are faster. (torch's SyncBatchNorm does not support CPUs, and its converter drops the
activation in timm's BatchNormAct2d.)
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from accelerate import Accelerator
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from deploy.errors import UserError
from distill.config import TrainConfig
from distill.training.valid_maps import ValidMaps


def sync_norms(module: nn.Module, accelerator: Accelerator, masked: bool = False) -> nn.Module:
    """Convert batch norms to synchronized modules, on several GPUs without masks; otherwise `step_norms` synchronizes.

    Args:
        module: its parameters and buffers stay the same tensors.
        accelerator: all its processes must run the module.
        masked: whether norms count valid positions only.

    Returns:
        The converted module, or `module` itself if there is nothing to convert.
    """
    if accelerator.num_processes > 1 and accelerator.device.type == "cuda" and not masked:
        return convert_sync_batchnorm(module)
    return module


def check_norms(name: str, config: TrainConfig, network: nn.Module) -> None:
    """Check that a training with masked norms has a network with batch norms.

    Args:
        name: of the training, as on the command line.
        config: its settings.
        network: its network.

    Raises:
        UserError: the norms are to be masked, but the network has no batch norms.
    """
    if config.steps and config.masked_norm and not any(isinstance(m, _BatchNorm) for m in network.modules()):
        raise UserError(f"--{name}.masked-norm: {type(network).__name__} has no batch norms; leave it out")


@contextmanager
def step_norms(accelerator: Accelerator, masked: bool = False, valid: Tensor | None = None) -> Iterator[None]:
    """The context of the forward pass of a batch, in which batch norms are masked and synchronized.

    Args:
        accelerator: all its processes must run the forward pass.
        masked: whether norms count valid positions only.
        valid: bool N×H×W, the pixels of the batch that count; None = all pixels count, in all processes.
    """
    together = accelerator.num_processes > 1 and (masked or accelerator.device.type != "cuda")
    if valid is None and not together:
        yield
        return
    norms = CountedBatchNorm(None if valid is None else ValidMaps(valid))
    token = _RUNNING.set(norms)
    try:
        with norms:
            yield
    finally:
        _RUNNING.reset(token)


def norms_again() -> AbstractContextManager[Any]:
    """The context in which a part of the current forward pass is recomputed later.

    Call it during the forward pass: in the backward pass no `TorchFunctionMode` is active.
    """
    return _RUNNING.get() or nullcontext()


class CountedBatchNorm(TorchFunctionMode):
    """While it is active, batch norms in training mode use statistics over the valid positions of all processes.

    The batches of the processes may differ in size. Output, gradients and running statistics are those of
    `F.batch_norm` on the concatenation of all valid positions; other positions are normalized by the same statistics.
    The gradients of weight and bias are this process's part of the sum, as for any parameter.

    A single valid value has no variance: with fewer than two, a norm uses its running statistics without updating them.

    Args:
        maps: the valid positions of this process; None = all are valid, in all processes.
    """

    def __init__(self, maps: ValidMaps | None = None) -> None:
        super().__init__()
        self.maps = maps

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        replaced = _REPLACED.get(func)
        return func(*args, **kwargs) if replaced is None else replaced(self.maps, *args, **kwargs)


def _functional(
    maps: ValidMaps | None,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Replaces `torch.nn.functional.batch_norm`."""
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    counts = None if maps is None else maps.of(input)
    mean, var, count = _statistics(input.detach(), counts)
    if counts is None and count < 2:
        raise ValueError("batch norm needs more than one value per channel over all processes")
    unbiased = var * (count / (count - 1))
    share = 1 / count
    if counts is not None:
        enough = count > 1
        mean = torch.where(enough, mean, 0 if running_mean is None else running_mean)
        var = torch.where(enough, var, 1 if running_var is None else running_var)
        unbiased = torch.where(enough, unbiased, var)
        share = counts * torch.where(enough, share, 0)
    if running_mean is not None:
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
    if running_var is not None:
        running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    return _Normalize.apply(input, mean, (var + eps).rsqrt(), weight, bias, share)  # pyright: ignore[reportReturnType]


def _torch(
    maps: ValidMaps | None,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:
    """Replaces `torch.batch_norm`."""
    return _functional(maps, input, running_mean, running_var, weight, bias, training, momentum, eps)


_REPLACED: dict[Callable[..., Tensor], Callable[..., Tensor]] = {
    F.batch_norm: _functional,
    torch.batch_norm: _torch,
}

_RUNNING: ContextVar[CountedBatchNorm | None] = ContextVar("norms of the forward pass", default=None)


def _statistics(x: Tensor, counts: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Statistics of each channel over all processes.

    Args:
        x: N×C×… of this process.
        counts: N×1×…, 1 at valid positions and 0 elsewhere; None = all are valid.

    Returns:
        Mean C, biased variance C (both at least float32), and the number of values (0-d).
    """
    wide, dims = _wide(x), _but_channels(x)
    if counts is None:
        var, mean = torch.var_mean(wide, dims, correction=0)
        count = mean.new_tensor(x.numel() // x.shape[1])
    else:
        count = counts.sum()
        share = counts / count.clamp(min=1)
        mean = (wide * share).sum(dims)
        var = (wide - _broadcast(mean, x)).square_().mul_(share).sum(dims)
    if not _several():
        return mean, var, count
    # in double precision and around each process's own mean, so that no precision is lost if the mean is large
    row = torch.cat([count.double().view(1), mean.double(), var.double()])
    counted, means, variances = _gather(row).split([1, len(mean), len(mean)], dim=1)
    total = counted.sum()
    shares = counted / total.clamp(min=1)
    common = (shares * means).sum(0)
    spread = (shares * (variances + (means - common).square())).sum(0)
    return common.to(mean.dtype), spread.to(mean.dtype), total.to(mean.dtype)


def _several() -> bool:
    return distributed.is_initialized() and distributed.get_world_size() > 1


def _gather(row: Tensor) -> Tensor:
    """The row of every process, in the order of their ranks."""
    rows = [torch.empty_like(row) for _ in range(distributed.get_world_size())]
    distributed.all_gather(rows, row)
    return torch.stack(rows)


class _Normalize(torch.autograd.Function):
    """weight · (x − mean) · inverse + bias, with the gradient that reaches x through the statistics of all processes.

    `share` is the weight of a position in the statistics: 1/count if it is valid, else 0. Autograd through the
    statistics would store several maps as large as x; this stores only x.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        mean: Tensor,
        inverse: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        share: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(x, mean, inverse, weight, share)
        scale = inverse if weight is None else inverse * weight
        # subtract the mean first: otherwise large values would cancel to their rounding errors
        y = (_wide(x) - _broadcast(mean, x)).mul_(_broadcast(scale, x))
        return (y if bias is None else y.add_(_broadcast(bias, x))).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, mean, inverse, weight, share = ctx.saved_tensors
        normal, wide = (_wide(x) - _broadcast(mean, x)).mul_(_broadcast(inverse, x)), _wide(grad)
        mine = torch.stack([part.sum(_but_channels(x)) for part in (wide, wide * normal)])
        grad_x = None
        if ctx.needs_input_grad[0]:
            both = mine.clone()
            if _several():
                distributed.all_reduce(both)
            of_mean, of_spread = (_broadcast(row, x) for row in both)
            scale = inverse if weight is None else inverse * weight
            through = normal.mul_(of_spread).add_(of_mean).mul_(share)
            grad_x = (wide - through).mul_(_broadcast(scale, x)).to(x.dtype)
        grad_bias, grad_weight = (
            row.to(inverse.dtype) if needed else None
            for row, needed in zip(mine, (ctx.needs_input_grad[4], ctx.needs_input_grad[3]), strict=True)
        )
        return grad_x, None, None, grad_weight, grad_bias, None


def _wide(x: Tensor) -> Tensor:
    """`x` in at least float32, which sums of half-precision maps need."""
    return x if x.dtype == torch.float64 else x.float()


def _but_channels(x: Tensor) -> list[int]:
    """The dimensions of N×C×… except that of the channels."""
    return [dim for dim in range(x.ndim) if dim != 1]


def _broadcast(row: Tensor, x: Tensor) -> Tensor:
    """Reshape C values to broadcast with `x`, N×C×…."""
    return row.view(1, -1, *[1] * (x.ndim - 2))
