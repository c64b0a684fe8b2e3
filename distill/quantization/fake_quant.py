"""The arithmetic of an INT8 model, simulated in torch: the grids, the gradients through them, and where they lie.

The rule is that of `deploy.quantize`: every convolution reads its input and its weight from a grid, every sum of two
features both of its terms, and a convolution writes to one before an operation that is never done in integers. Whatever
else reads such a tensor gets it from the grid, too. On the grid q = round(x / scale), halves to even, within −128 … 127
and with zero point 0; what goes on is q·scale.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from deploy.errors import UserError
from teacher.pspnet import Output

LOW, HIGH = -128, 127
"""Bounds of a signed byte. A scale is a range over `HIGH`: −128 is only ever a saturated activation."""


class _FakeQuantize(torch.autograd.Function):
    """As if rounding were the identity: straight through within the grid, 0 beyond it (Esser et al., arXiv:1902.08153).

    A `Function` of its own, because it keeps x for the backward pass and nothing else as large.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale)
        # in float32 whatever x is, as the engine does
        return ((x.float() / scale).round_().clamp_(LOW, HIGH) * scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, scale = ctx.saved_tensors
        exact = x.float() / scale
        steps = exact.round()
        inside = (steps >= LOW) & (steps <= HIGH)
        if not ctx.needs_input_grad[1]:
            return grad * inside, None
        slope = torch.where(inside, steps - exact, steps.clamp_(LOW, HIGH))
        return grad * inside, (slope * grad).sum()


def fake_quantize(x: Tensor, scale: Tensor) -> Tensor:
    """`x` of any shape, quantised to signed bytes and back, in its own dtype.

    `scale` is positive and float32: 0-d, or without a gradient of a shape that broadcasts to x. The gradient of x
    passes where round(x/scale) is within −128 … 127.
    """
    return _FakeQuantize.apply(x, scale)  # pyright: ignore[reportReturnType]


def fake_quantize_weight(weight: Tensor) -> Tensor:
    """A weight K×C×h×w on the grids of its K output channels, scale max |w| / 127; the whole gradient passes."""
    largest = weight.detach().float().abs().amax((1, 2, 3), keepdim=True)
    return fake_quantize(weight, torch.where(largest > 0, largest / HIGH, 1.0))


@dataclass(frozen=True)
class Site:
    """An operation that is done in integers: what `deploy.quantize.qdq` calls a layer.

    Attributes:
        kind: as ONNX calls it.
        weight: name of the convolution's weight; "" for a sum, and for a weight that is computed on the way.
        grids: numbers of the grids that it reads, and that it writes to if what follows is done in float.
    """

    kind: Literal["Conv", "Add"]
    weight: str
    grids: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """A call of torch that gives a map N×C×H×W: its function, a convolution's weight, and the grid of the result."""

    function: str
    weight: str
    grid: int | None


@dataclass(frozen=True)
class Plan:
    """Where the grids of a network lie: `sites` and `steps` in the order of execution, and the grid of the image.

    The steps may depend on the size of the image, because pooling does; the sites do not.
    """

    sites: tuple[Site, ...]
    steps: tuple[Step, ...]
    image: int | None


def make_plan(network: nn.Module, images: Tensor) -> Plan:
    """The plan of a network for images of this size, found by running it on a blank one in evaluation mode.

    Raises:
        UserError: something to be quantised comes from where it cannot be followed.
    """
    modes = [(module, module.training) for module in network.modules()]
    # tensors of inference mode do not say whether they have been changed
    with torch.inference_mode(False), torch.no_grad():
        blank = torch.zeros(1, *images.shape[1:], device=images.device)
        recorder = _Recorder(network, blank)
        network.eval()
        try:
            with recorder:
                network(blank)
        finally:
            for module, training in modes:
                module.training = training
    return recorder.plan()


def simulate(
    network: nn.Module,
    plan: Plan,
    images: Tensor,
    quantize: Callable[[int, Tensor], Tensor],
    quantize_weight: Callable[[Tensor], Tensor],
) -> Output:
    """Run a network with `quantize(grid, map)` and `quantize_weight(weight)` in place of what the plan puts on grids.

    What only training runs, the auxiliary head, is not in the plan and stays as it is.

    Raises:
        UserError: the network did not come past all of the plan: what it does depends on more than the image's size.
    """
    with _Simulator(network, plan, quantize, quantize_weight) as simulator:
        output = network(images if plan.image is None else quantize(plan.image, images))
    if simulator.pending:
        raise UserError(
            "quantization-aware training: the layers of this network change from run to run;"
            " use post-training quantization"
        )
    return output


_Key = tuple[int, int]
"""A tensor's identity and version: what is changed in place becomes another tensor."""

_CLIPS = {"relu", "relu6", "hardtanh", "clamp", "clip"}
"""They and rounding commute, so a convolution may write to the grid of what they give."""
_IN_FLOAT = {
    "cat", "concat", "conv_transpose2d", "elu", "flatten", "gelu", "hardsigmoid", "hardswish", "interpolate",
    "leaky_relu", "mish", "mul", "pixel_shuffle", "prelu", "reshape", "sigmoid", "silu", "tanh", "view",
}  # fmt: skip
"""Never done in integers. A convolution before one writes to a grid, or a CPU would not do it in integers either. These
export as `_FLOAT_READERS` of `deploy.quantize.structure`; where the two part, `QatNetwork.ranges` refuses.
"""


class _Recorder(TorchFunctionMode):
    """Makes the plan of a network while it runs as it is."""

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        super().__init__()
        self._names = _names(network)
        self._alive: list[Tensor] = []
        self._calls: list[tuple[str, str]] = []
        self._made = {self._key(images): -1}  # and the numbers of calls
        self._features: set[_Key] = set()
        self._before_moves: dict[_Key, _Key] = {}
        self._shuffled: set[_Key] = set()
        self._grids: dict[_Key, int] = {}
        self._sites: list[tuple[Literal["Conv", "Add"], str, list[int]]] = []
        self._written: dict[_Key, list[int]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = [self._key(x) for x in _tensors((*args, *kwargs.values()))]
        call = _call(func, args, kwargs, self._names)
        result = func(*args, **kwargs)
        _on_maps(result, lambda x: self._record(call, inputs, x))
        for key in inputs:
            if call[0] in _IN_FLOAT and key in self._written:
                self._written.pop(key).append(self._grid(key))
        if not self._features.isdisjoint(inputs):
            self._features.update(map(self._key, _tensors([result])))
        return result

    def plan(self) -> Plan:
        """The plan, after the run."""
        lost = self._grids.keys() - self._made.keys()
        if lost:
            raise UserError(
                "quantization-aware training: the features of this network cannot be followed;"
                " use post-training quantization"
            )
        placed = {self._made[key]: grid for key, grid in self._grids.items()}
        steps = [Step(*call, placed.get(i)) for i, call in enumerate(self._calls)]
        sites = [Site(kind, weight, tuple(grids)) for kind, weight, grids in self._sites]
        return Plan(tuple(sites), tuple(steps), placed.get(-1))

    def _record(self, call: tuple[str, str], inputs: list[_Key], x: Tensor) -> Tensor:
        function, output = call[0], self._key(x)
        if function == "conv2d":
            grids = [self._grid(inputs[0])]
            self._sites.append(("Conv", call[1], grids))
            self._written[output] = grids
            self._features.add(output)
        elif function == "add" and len(inputs) == 2 and self._features.issuperset(inputs):
            self._sites.append(("Add", "", [self._grid(key) for key in inputs]))
        elif function in ("max_pool2d", "pixel_shuffle") or (
            function == "__getitem" and inputs[0] in self._shuffled
        ):  # rounding commutes with picking values
            self._before_moves[output] = self._before_moves.get(inputs[0], inputs[0])
            if function != "max_pool2d":
                self._shuffled.add(output)
        elif function in _CLIPS and inputs[0] in self._written:
            self._written[output] = self._written[inputs[0]]
        self._made.setdefault(output, len(self._calls))
        self._calls.append(call)
        return x

    def _grid(self, key: _Key) -> int:
        return self._grids.setdefault(self._before_moves.get(key, key), len(self._grids))

    def _key(self, x: Tensor) -> _Key:
        self._alive.append(x)  # or its id would be given to another
        return id(x), x._version


class _Simulator(TorchFunctionMode):
    """Puts on grids what a plan says, as soon as it is there."""

    def __init__(
        self,
        network: nn.Module,
        plan: Plan,
        quantize: Callable[[int, Tensor], Tensor],
        quantize_weight: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.pending = list(reversed(plan.steps))
        self._names = _names(network)
        self._quantize = quantize
        self._quantize_weight = quantize_weight

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        call = _call(func, args, kwargs, self._names)
        if func is F.conv2d and self._is_next(call):
            func = self._convolve
        return _on_maps(func(*args, **kwargs), lambda x: self._place(call, x))

    def _is_next(self, call: tuple[str, str]) -> bool:
        return bool(self.pending) and (self.pending[-1].function, self.pending[-1].weight) == call

    def _convolve(self, input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return F.conv2d(input, self._quantize_weight(weight), *args, **kwargs)

    def _place(self, call: tuple[str, str], x: Tensor) -> Tensor:
        grid = self.pending.pop().grid if self._is_next(call) else None
        return x if grid is None else self._quantize(grid, x)


def _names(network: nn.Module) -> dict[int, str]:
    return {id(parameter): name for name, parameter in network.named_parameters()}


def _call(func: Any, args: Any, kwargs: Any, names: dict[int, str]) -> tuple[str, str]:
    """The name of a function, in place or not, and that of a convolution's weight parameter."""
    if func is F.conv2d:
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        return "conv2d", names.get(id(weight), "")
    return getattr(func, "__name__", "").rstrip("_"), ""


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)


def _on_maps(result: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """What a function of torch returned, with every map N×C×H×W in it changed."""
    if isinstance(result, Tensor):
        return change(result) if result.ndim == 4 and result.is_floating_point() else result
    if type(result) in (tuple, list):
        return type(result)(_on_maps(value, change) for value in result)
    return result
