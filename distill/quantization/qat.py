"""Quantization-aware training: a trained network feels, while it is trained on, the INT8 arithmetic it will run in.

`to_qat` makes of a trained network one that `distill.training.loop.train` trains as any other, teacher included. Batch norms
are folded into the convolutions first, and the pyramid into the head, so training sees the arithmetic that is deployed.
What is simulated is exactly what the INT8 model of `deploy.quantize.qdq` computes (see `distill.quantization.fake_quant`).

The network keeps its own modules and code: while it runs, a `TorchFunctionMode` rounds what its functions return and
the weights that its convolutions read. Hence nothing must be traceable, images may have any size, dropout and auxiliary
head do what they always do, and `QatNetwork.plain()`, the network without the simulation, is exported like any other.

The range of each activation starts where its squared error is smallest, and is learned. On a small network of which
one channel was made 128 times too large, 200 steps of training with a teacher took the mIoU from 0.57 to 0.67 with
learned ranges, and to 0.60–0.65 with fixed ones or a running average of the maximum; before INT8 it was 0.68. Weights
and ranges belong together: with ranges searched anew for the tuned weights it fell back to 0.60–0.62.
"""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from deploy.errors import UserError
from deploy.quantize.qdq import Layer, layers
from distill.quantization.fake_quant import (
    HIGH,
    Plan,
    Site,
    fake_quantize,
    fake_quantize_weight,
    make_plan,
    simulate,
)
from student.device import folded
from teacher.pspnet import Output

RANGE_RATE = 10.0
"""How much faster ranges learn than weights: a step of Adam at rate r changes a range by a factor of e^(±10·r).

Thresholds learned as logarithms want a far higher rate than weights (Jain et al., arXiv:1903.08066).
"""


class RangeSearch:
    """The clipping range of a tensor with the smallest mean squared error, over any number of batches.

    The candidates are those of the first batch: its largest magnitude times 2^(k/4), k = −16 … 8.
    """

    def __init__(self) -> None:
        self._candidates: Tensor | None = None
        self._errors: list[float] = []

    def observe(self, x: Tensor) -> None:
        """Add a batch of the tensor."""
        x = x.detach().float()
        if self._candidates is None:
            self._candidates = x.abs().max() * 2.0 ** (torch.arange(-16, 9, device=x.device) / 4)
            self._errors = [0.0] * len(self._candidates)
        for i, candidate in enumerate(self._candidates):
            self._errors[i] += float((fake_quantize(x, candidate / HIGH) - x).square().sum())

    def best(self) -> float:
        """The best range; 1 for a tensor that was 0 throughout, for which any will do. NaN where x was not finite."""
        if self._candidates is None:
            raise ValueError("no batch has been observed")
        if not self._candidates.isfinite().all():
            return float("nan")
        return float(self._candidates[self._errors.index(min(self._errors))]) or 1.0


class QatNetwork(nn.Module):
    """A network in simulated INT8; `forward` takes and returns what the network does (see `to_qat`).

    Attributes:
        network: the network with folded batch norms, whose weights are trained.
        sites: the operations that are done in integers, in the order of execution.
        log_ranges: one number r for each grid, whose range, the value that becomes 127, is e^(10·r).
    """

    def __init__(self, network: nn.Module, sites: tuple[Site, ...], ranges: Tensor) -> None:
        super().__init__()
        self.network = network
        self.sites = sites
        self._plans: dict[torch.Size, Plan] = {}
        self.log_ranges = nn.Parameter(ranges.log() / RANGE_RATE)

    def forward(self, x: Tensor) -> Output:
        scales = (self._ranges() / HIGH).unbind()

        def quantize(grid: int, features: Tensor) -> Tensor:
            return fake_quantize(features, scales[grid])

        return self.simulate(x, quantize, fake_quantize_weight)

    def simulate(
        self,
        x: Tensor,
        quantize: Callable[[int, Tensor], Tensor],
        quantize_weight: Callable[[Tensor], Tensor],
    ) -> Output:
        """What the network makes of x with other grids: see `distill.quantization.fake_quant.simulate`."""
        size = x.shape[1:]
        if size not in self._plans:
            plan = make_plan(self.network, x)
            if plan.sites != self.sites:
                raise UserError(
                    f"quantization-aware training: on images of {size[1]}×{size[2]} this network has other layers;"
                    " train on images of the size that it is exported with"
                )
            self._plans[size] = plan
        return simulate(self.network, self._plans[size], x, quantize, quantize_weight)

    def train(self, mode: bool = True) -> "QatNetwork":
        """As usual, but a batch norm that could not be folded keeps the statistics that it is deployed with."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def plain(self) -> nn.Module:
        """A copy of the network with the weights trained so far and without the simulation, to export as any other."""
        return copy.deepcopy(self.network).eval()

    def ranges(self, model: bytes) -> dict[str, float]:
        """The learned ranges by the names of the ONNX model of `plain()`, as `deploy.quantize.qdq.insert` wants them.

        Some values lie beyond a learned range, and training relies on their being clipped. `cpu_form` does not clip
        where no value is negative, so it computes a little different from what was trained.

        Raises:
            UserError: `model` is not the export of this network.
        """
        learned = self._ranges().tolist()
        ranges: dict[str, float] = {}

        def agree(layer: Layer, site: Site) -> bool:
            named = site.weight in ("", layer.name, f"{layer.name}.weight")
            pairs = list(zip(layer.tensors, site.grids, strict=False))
            same = [ranges.setdefault(tensor, learned[grid]) == learned[grid] for tensor, grid in pairs]
            return named and layer.kind == site.kind and len(layer.tensors) == len(site.grids) and all(same)

        found = layers(model)
        if len(found) != len(self.sites) or not all(map(agree, found, self.sites)):
            raise UserError("the ONNX model is not that of the network trained in INT8; export it again")
        return ranges

    def _ranges(self) -> Tensor:
        return (self.log_ranges * RANGE_RATE).exp()


def to_qat(
    network: nn.Module, example: Tensor, calibration: Iterable[Tensor], *, fold: bool = True
) -> QatNetwork:
    """A copy of a trained network that simulates INT8, in evaluation mode.

    Args:
        network: returns `teacher.pspnet.Output`, on the device of the images.
        example: normalized images N×C×H×W, as those of training.
        calibration: batches of normalized images, some dozens in all, that the first ranges are taken from.
        fold: take its `folded` form, as `fold` of its export. A folded network cannot be unfolded, so `plain()` is
            exported without folding again.

    Raises:
        UserError: a network that cannot be quantised so, or no calibration images.
    """
    original, network = network, copy.deepcopy(network).eval()
    if fold:
        network = folded(network)
    with torch.no_grad():
        _fold_norms(network, example)
        sites = make_plan(network, example).sites
        if not sites:
            raise UserError("quantization-aware training: no convolution to quantise; train another student")
        grids = 1 + max(grid for site in sites for grid in site.grids)
        qat = QatNetwork(network, sites, torch.ones(grids, device=example.device)).eval()
        _check_unchanged(original, qat, example)
        qat.log_ranges.copy_(_calibrated(qat, calibration).log() / RANGE_RATE)
    return qat.requires_grad_(True)  # folding leaves new biases without gradients


def _fold_norms(network: nn.Module, example: Tensor) -> None:
    """Give every convolution the batch norm that reads its output, in place; activations inside a norm stay."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    pairs: list[tuple[nn.Conv2d, _BatchNorm]] = []

    def after(convolution: nn.Conv2d, _: Any, output: Tensor) -> None:
        made[id(output)] = convolution, output  # kept alive, or another tensor may get its id

    def before(norm: _BatchNorm, args: tuple[Tensor, ...]) -> None:
        if id(args[0]) in made:
            pairs.append((made[id(args[0])][0], norm))

    names = {module: name for name, module in network.named_modules()}
    hooks = [m.register_forward_hook(after) for m in names if isinstance(m, nn.Conv2d)]
    hooks += [m.register_forward_pre_hook(before) for m in names if isinstance(m, _BatchNorm)]
    network(example)
    for hook in hooks:
        hook.remove()
    for convolution, norm in pairs:
        fused = fuse_conv_bn_eval(convolution, norm)
        convolution.weight, convolution.bias = fused.weight, fused.bias
        # timm's BatchNormAct2d holds them
        rest = [getattr(norm, part) for part in ("drop", "act") if hasattr(norm, part)]
        network.set_submodule(names[norm], nn.Sequential(*rest) if rest else nn.Identity())


def _check_unchanged(original: nn.Module, qat: QatNetwork, example: Tensor) -> None:
    """Without rounding the simulation must compute what the network did.

    On the CPU, as a GPU's convolutions in TF32 alone differ by more than folding a norm wrongly might.
    """
    example = example[:1].cpu()
    expected = copy.deepcopy(original).cpu().eval()(example).logits
    computed = copy.deepcopy(qat).cpu().simulate(example, lambda _, x: x, lambda weight: weight).logits
    difference = float((computed - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
    if not difference < 1e-3:
        raise UserError(
            "quantization-aware training: this network changes when its batch norms are folded"
            f" (by {difference:.1e} of its logits); use post-training quantization"
        )


def _calibrated(qat: QatNetwork, calibration: Iterable[Tensor]) -> Tensor:
    """The first ranges, from the activations of the network in float."""
    searches = [RangeSearch() for _ in qat.log_ranges]

    def watch(grid: int, x: Tensor) -> Tensor:
        searches[grid].observe(x)
        return x

    batches = 0
    for images in calibration:
        qat.simulate(images, watch, lambda weight: weight)
        batches += 1
    if not batches:
        raise UserError("quantization-aware training: no calibration images; give some of the training split")
    ranges = torch.tensor([search.best() for search in searches], device=qat.log_ranges.device)
    if not ranges.isfinite().all():
        raise UserError("quantization-aware training: activations are not finite on the calibration images")
    return ranges
