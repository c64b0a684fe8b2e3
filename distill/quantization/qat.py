"""Quantization-aware training: fine-tune a trained network while simulating INT8 arithmetic.

`to_qat` converts a trained network into one that `distill.training.loop.train` trains like any other, with a teacher or
without. Batch norms are folded into the convolutions first, and the pyramid into the head, so that training uses the
arithmetic of the device. The simulation computes exactly what the INT8 model of `deploy.quantize.qdq` computes (see
`distill.quantization.fake_quant`).

The network keeps its modules and code: while it runs, a `TorchFunctionMode` rounds the results of its functions and the
weights of its convolutions. So the network need not be traceable, images can have any size, dropout and the auxiliary
head work as usual, and `QatNetwork.plain()`, the network without the simulation, is exported like any other.

The range of each activation is initialized to minimize its squared error, and is learned. On a small network with one
channel scaled up by 128, 200 steps of training with a teacher raised the mIoU from 0.57 to 0.67 with learned ranges,
and to 0.60–0.65 with fixed ones or a running average of the maximum; before INT8 it was 0.68. Weights and ranges belong
together: with ranges searched again for the tuned weights, the mIoU fell back to 0.60–0.62.
"""

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from deploy.errors import UserError
from deploy.quantize.qdq import Layer, layers
from distill.quantization.fake_quant import Plan, Site, make_plan, simulate
from distill.quantization.grids import HIGH, fake_quantize, fake_quantize_weight, scale_above
from student.device import folded
from teacher.pspnet import Output

SIMULATED = ("Conv", "Add")
"""Kinds of layers that training simulates; matrix products of transformers are quantized after it."""
RANGE_RATE = 10.0
"""How much faster ranges learn than weights: a step of Adam at rate r changes a range by a factor of e^(±10·r).

Thresholds that are learned as logarithms need a much higher rate than weights (Jain et al., arXiv:1903.08066).
"""
STEPS = range(-16, 1)
"""Candidates for a range, in quarters of octaves below the largest magnitude."""


class RangeSearch:
    """The clipping range of a tensor with the smallest mean squared error, over any number of batches.

    All batches are seen twice: `measure` finds the largest magnitude of all, and `observe` adds up the errors of the
    candidates, that magnitude times 2^(k/4), k = −16 … 0.
    """

    def __init__(self) -> None:
        self._largest = 0.0
        self._errors = [0.0] * len(STEPS)

    def measure(self, x: Tensor) -> None:
        """First pass: add a batch of the tensor to its largest magnitude."""
        largest = float(x.detach().abs().max())
        self._largest = max(self._largest, largest) if math.isfinite(largest) else math.inf

    def observe(self, x: Tensor) -> None:
        """Second pass: add a batch of the tensor to the errors."""
        x = x.detach().float()
        if 0 < self._largest < math.inf:
            for i, candidate in enumerate(self._candidates()):
                scale = torch.tensor(candidate / HIGH, device=x.device)
                self._errors[i] += float((fake_quantize(x, scale) - x).square().sum())

    def best(self) -> float:
        """The best range; 1 for a tensor that is always 0, where any range is exact; NaN if a value was not finite."""
        if self._largest == math.inf:
            return float("nan")
        return self._candidates()[self._errors.index(min(self._errors))] or 1.0

    def _candidates(self) -> list[float]:
        return [self._largest * 2.0 ** (step / 4) for step in STEPS]


class QatNetwork(nn.Module):
    """A network in simulated INT8, with the inputs and outputs of the network (see `to_qat`).

    Attributes:
        network: the network with folded batch norms, whose weights are trained.
        sites: the operations that run in integers, in the order of execution.
        log_ranges: a number r for each grid: its range, the value that becomes 127, is e^(10·r).
    """

    def __init__(self, network: nn.Module, sites: tuple[Site, ...], ranges: Tensor) -> None:
        super().__init__()
        self.network = network
        self.sites = sites
        self._plans: dict[torch.Size, Plan] = {}
        self.log_ranges = nn.Parameter(ranges.log() / RANGE_RATE)

    def forward(self, x: Tensor) -> Output:
        scales = scale_above(self._ranges() / HIGH).unbind()

        def quantize(grid: int, features: Tensor) -> Tensor:
            return fake_quantize(features, scales[grid])

        return self.simulate(x, quantize, fake_quantize_weight)

    def simulate(
        self,
        x: Tensor,
        quantize: Callable[[int, Tensor], Tensor],
        quantize_weight: Callable[[Tensor], Tensor],
    ) -> Output:
        """Run the network on `x` with other quantizers.

        Args:
            x: normalized images N×C×H×W.
            quantize: as in `distill.quantization.fake_quant.simulate`.
            quantize_weight: as there.

        Raises:
            UserError: the network has other layers for images of this size, or its layers change from run to run.
        """
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
        """Set the mode as usual, but keep batch norms that could not be folded in evaluation mode, as deployed."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def plain(self) -> nn.Module:
        """A copy of the network with its trained weights and without the simulation, for export."""
        return copy.deepcopy(self.network).eval()

    def ranges(self, model: bytes) -> dict[str, float]:
        """The learned ranges by tensor name, as input of `deploy.quantize.qdq.insert`; none of matrix products.

        Some values exceed a learned range, and training relies on clipping them. `cpu_form` does not clip where no
        value is negative, so its results differ slightly from those in training.

        Args:
            model: the ONNX model of `plain()`.

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

        found = [layer for layer in layers(model) if layer.kind in SIMULATED]
        if len(found) != len(self.sites) or not all(map(agree, found, self.sites)):
            raise UserError("the ONNX model is not that of the network trained in INT8; export it again")
        return ranges

    def _ranges(self) -> Tensor:
        return (self.log_ranges * RANGE_RATE).exp()


def to_qat(
    network: nn.Module, example: Tensor, calibration: Sequence[Tensor], *, fold: bool = True
) -> QatNetwork:
    """Copy a trained network into one that simulates INT8, in evaluation mode.

    Args:
        network: returns `teacher.pspnet.Output`, on the device of the images.
        example: normalized images N×C×H×W of the training size.
        calibration: batches of normalized images, some dozens in all, from which the ranges are initialized.
        fold: use its `folded` form, like `fold` of its export. Folding cannot be undone, so `plain()` is exported
            without folding again.

    Raises:
        UserError: the network cannot be trained with simulated INT8, or there are no calibration images.
    """
    original, network = network, copy.deepcopy(network).eval()
    if fold:
        network = folded(network)
    with torch.no_grad():
        _fold_norms(network, example)
        sites = make_plan(network, example).sites
        if not sites:
            raise UserError("quantization-aware training: no convolution to quantize; train another student")
        grids = 1 + max(grid for site in sites for grid in site.grids)
        qat = QatNetwork(network, sites, torch.ones(grids, device=example.device)).eval()
        _check_unchanged(original, qat, example)
        qat.log_ranges.copy_(_calibrated(qat, calibration).log() / RANGE_RATE)
    return qat.requires_grad_(True)  # folding leaves new biases without gradients


def _fold_norms(network: nn.Module, example: Tensor) -> None:
    """Fold each batch norm into the convolution before it, in place; activations inside a norm stay."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    pairs: list[tuple[nn.Conv2d, _BatchNorm]] = []

    def after(convolution: nn.Conv2d, _: Any, output: Tensor) -> None:
        made[id(output)] = convolution, output  # kept alive, otherwise another tensor could get its id

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
        # timm's BatchNormAct2d contains dropout and activation
        rest = [getattr(norm, part) for part in ("drop", "act") if hasattr(norm, part)]
        network.set_submodule(names[norm], nn.Sequential(*rest) if rest else nn.Identity())


def _check_unchanged(original: nn.Module, qat: QatNetwork, example: Tensor) -> None:
    """Check that the simulation without rounding computes what the network computed.

    It runs on the CPU, as TF32 convolutions on a GPU differ by more than an error in folding could.

    Raises:
        UserError: the logits differ.
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


def _calibrated(qat: QatNetwork, calibration: Sequence[Tensor]) -> Tensor:
    """Initial ranges from the activations of the network in float."""
    if not calibration:
        raise UserError("quantization-aware training: no calibration images; give some of the training split")
    searches = [RangeSearch() for _ in qat.log_ranges]

    def watch(grid: int, x: Tensor, look: Callable[[RangeSearch, Tensor], None]) -> Tensor:
        look(searches[grid], x)
        return x

    for look in (
        RangeSearch.measure,
        RangeSearch.observe,
    ):  # all batches have a say in what the second pass tries
        for images in calibration:
            qat.simulate(images, partial(watch, look=look), lambda weight: weight)
    ranges = torch.tensor([search.best() for search in searches], device=qat.log_ranges.device)
    if not ranges.isfinite().all():
        raise UserError("quantization-aware training: activations are not finite on the calibration images")
    return ranges
