"""Batch norm over the batch of all processes, on any device.

torch's SyncBatchNorm refuses a CPU, and its converter drops the activation inside timm's BatchNormAct2d. So a GPU gets
timm's converter, which keeps it, and everything else a `TorchFunctionMode` that computes what `F.batch_norm` would on
the concatenated batch. Whose module calls it does not matter then, and the network stays as it is.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def sync_norms(module: nn.Module, accelerator: Accelerator) -> nn.Module:
    """`module` with its batch norms in training mode over all processes of `accelerator`, which all must run it.

    Parameters and buffers stay the same tensors; on a GPU norms become other modules. Elsewhere nothing changes here:
    there `synced_steps` does it.
    """
    if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
        return convert_sync_batchnorm(module)
    return module


def synced_steps(accelerator: Accelerator) -> AbstractContextManager[Any]:
    """What forward and backward passes run in, where norms are not modules of their own that talk to the others.

    The backward pass too, since checkpointed activations are computed again in it.
    """
    if accelerator.num_processes > 1 and accelerator.device.type != "cuda":
        return SyncedBatchNorm()
    return nullcontext()


class SyncedBatchNorm(TorchFunctionMode):
    """While it is active, batch norms in training mode normalise by the statistics of all processes' batches.

    Output, gradients and running statistics are those of `F.batch_norm` on the concatenation of the batches, which may
    differ in size. The gradients of weight and bias are this process' part of the sum, as those of any parameter.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        function: Any = _REPLACED.get(func, func)
        return function(*args, **(kwargs or {}))


def _functional(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """In place of `torch.nn.functional.batch_norm`."""
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    mean, var, count = _statistics(input.detach())
    if count < 2:
        raise ValueError("batch norm needs more than one value per channel over all processes")
    if running_mean is not None:
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
    if running_var is not None:
        running_var.lerp_((var * (count / (count - 1))).to(running_var.dtype), momentum)
    return _Normalise.apply(input, mean, (var + eps).rsqrt(), weight, bias, count)  # pyright: ignore[reportReturnType]


def _torch(
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
    """In place of `torch.batch_norm`."""
    return _functional(input, running_mean, running_var, weight, bias, training, momentum, eps)


_REPLACED: dict[Callable[..., Tensor], Callable[..., Tensor]] = {
    F.batch_norm: _functional,
    torch.batch_norm: _torch,
}


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean and biased variance of each channel (C, at least float32) over all processes, and the number of values."""
    var, mean = torch.var_mean(_wide(x), _but_channels(x), correction=0)
    count = mean.new_full((1,), x.numel() // x.shape[1], dtype=torch.float64)
    # In double precision and from each process' own mean, so that nothing is lost where the mean is large.
    counts, means, variances = _gather(torch.cat([count, mean.double(), var.double()])).split(
        [1, len(mean), len(mean)], dim=1
    )
    total = counts.sum()
    common = (counts * means).sum(0) / total
    spread = (counts * (variances + (means - common).square())).sum(0) / total
    return common.to(mean.dtype), spread.to(mean.dtype), int(total)


def _gather(row: Tensor) -> Tensor:
    """The row of every process, in the order of their ranks."""
    rows = [torch.empty_like(row) for _ in range(distributed.get_world_size())]
    distributed.all_gather(rows, row)
    return torch.stack(rows)


class _Normalise(torch.autograd.Function):
    """weight · (x − mean) · inverse + bias, with the gradient that reaches x through the statistics of all processes.

    Autograd through the statistics would keep several maps as large as x; this keeps x alone.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        mean: Tensor,
        inverse: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        count: int,
    ) -> Tensor:
        ctx.save_for_backward(x, mean, inverse, weight)
        ctx.count = count
        scale = inverse if weight is None else inverse * weight
        # the mean first, or what is left of large values would be their rounding
        y = (_wide(x) - _broadcast(mean, x)).mul_(_broadcast(scale, x))
        return (y if bias is None else y.add_(_broadcast(bias, x))).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, mean, inverse, weight = ctx.saved_tensors
        normal, wide = (_wide(x) - _broadcast(mean, x)) * _broadcast(inverse, x), _wide(grad)
        mine = torch.stack([part.sum(_but_channels(x)) for part in (wide, wide * normal)])
        grad_x = None
        if ctx.needs_input_grad[0]:
            both = mine.clone()
            distributed.all_reduce(both)
            of_mean, of_spread = (_broadcast(row, x) for row in both / ctx.count)
            scale = inverse if weight is None else inverse * weight
            grad_x = ((wide - of_mean - normal * of_spread) * _broadcast(scale, x)).to(x.dtype)
        grad_bias, grad_weight = (
            row.to(inverse.dtype) if needed else None
            for row, needed in zip(mine, (ctx.needs_input_grad[4], ctx.needs_input_grad[3]), strict=True)
        )
        return grad_x, None, None, grad_weight, grad_bias, None


def _wide(x: Tensor) -> Tensor:
    """At least float32: sums of a half-precision map need it."""
    return x if x.dtype == torch.float64 else x.float()


def _but_channels(x: Tensor) -> list[int]:
    """The dimensions of N×C×… without that of the channels."""
    return [dim for dim in range(x.ndim) if dim != 1]


def _broadcast(row: Tensor, x: Tensor) -> Tensor:
    """C values, to be combined with N×C×…."""
    return row.view(1, -1, *[1] * (x.ndim - 2))
