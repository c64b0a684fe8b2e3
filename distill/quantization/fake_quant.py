"""Where fake quantization applies: the tensors of an INT8 model that are rounded, simulated in torch.

The rule is that of `deploy.quantize`: the input and the weight of every convolution are quantized, both terms of every
sum of two features, and the output of a convolution before an operation that always runs in float. All readers of a
quantized tensor get its quantized values, those of its grid (`distill.quantization.grids`).

That is what CPUs compute. TensorRT's form leaves out some of these roundings (`deploy.quantize.tensorrt_form`).
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


@dataclass(frozen=True)
class Site:
    """An operation that runs in integers, which `deploy.quantize.qdq` calls a layer.

    Attributes:
        kind: type of the ONNX operator.
        weight: name of the convolution's weight; "" for a sum, and for a weight that is computed in the forward pass.
        grids: numbers of the grids of its inputs, and of its output if the next operation runs in float.
    """

    kind: Literal["Conv", "Add"]
    weight: str
    grids: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """A call of torch that returns a map N×C×H×W: its function, a convolution's weight, and the grid of the result."""

    function: str
    weight: str
    grid: int | None


@dataclass(frozen=True)
class Plan:
    """Which tensors of a network are quantized: `sites` and `steps` in the order of execution, and the image's grid.

    The steps may depend on the size of the image, because pooling does; the sites do not.
    """

    sites: tuple[Site, ...]
    steps: tuple[Step, ...]
    image: int | None


def make_plan(network: nn.Module, images: Tensor) -> Plan:
    """Make the plan of a network for the size of `images`, by running it on a blank one in evaluation mode.

    Raises:
        UserError: the origin of a tensor to be quantized cannot be traced.
    """
    modes = [(module, module.training) for module in network.modules()]
    # inference tensors do not count in-place changes
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
    """Run a network with the tensors in the plan quantized.

    The auxiliary head, which only runs in training, is not in the plan and is not quantized.

    Args:
        network: returns `teacher.pspnet.Output`.
        plan: the plan of the network for images of this size.
        images: normalized, N×C×H×W.
        quantize: called with the number of a grid and a map; returns the map to use instead.
        quantize_weight: called with the weight of a convolution; returns the weight to use instead.

    Raises:
        UserError: the network did not run all steps of the plan: its layers depend on more than the image size.
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
"""A tensor's id and version: a tensor that is changed in place counts as another one."""

_CLIPS = {"relu", "relu6", "hardtanh", "clamp", "clip"}
"""They commute with rounding, so the output of a convolution before one may use the grid of their result."""
_IN_FLOAT = {
    "cat", "concat", "conv_transpose2d", "elu", "flatten", "gelu", "hardsigmoid", "hardswish", "interpolate",
    "leaky_relu", "mish", "mul", "pixel_shuffle", "prelu", "reshape", "sigmoid", "silu", "tanh", "view",
}  # fmt: skip
"""They always run in float. The output of a convolution before one is quantized, otherwise a CPU would run that
convolution in float too. They are exported as `_FLOAT_READERS` of `deploy.quantize.structure`; if the two sets differ,
`QatNetwork.ranges` raises.
"""


_NORMS = {"group_norm", "instance_norm", "layer_norm", "rms_norm"}
"""A sum that one of them reads stays in float, as in `deploy.quantize.structure`."""
_ARRANGES = {"flatten", "permute", "reshape", "transpose", "unflatten", "view"}


class _Recorder(TorchFunctionMode):
    """Makes the plan of a network while it runs unchanged."""

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        super().__init__()
        self._names = _names(network)
        self._alive: list[Tensor] = []
        self._calls: list[tuple[str, str]] = []
        self._made = {self._key(images): -1}  # the call that made each tensor
        self._features: set[_Key] = set()
        self._before_moves: dict[_Key, _Key] = {}
        self._shuffled: set[_Key] = set()
        self._grids: dict[_Key, int] = {}
        self._sites: list[tuple[Literal["Conv", "Add"], str, list[int]]] = []
        self._written: dict[_Key, list[int]] = {}
        self._sums: dict[_Key, int] = {}  # the site of each sum, also of its values in another order
        self._normalized: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = [self._key(x) for x in _tensors((*args, *kwargs.values()))]
        call = _call(func, args, kwargs, self._names)
        result = func(*args, **kwargs)
        _on_maps(result, lambda x: self._record(call, inputs, x))
        for key in inputs:
            if call[0] in _IN_FLOAT and key in self._written:
                self._written.pop(key).append(self._grid(key))
            if call[0] in _NORMS and key in self._sums:
                self._normalized.add(self._sums[key])
        if not self._features.isdisjoint(inputs):
            self._features.update(map(self._key, _tensors([result])))
        return result

    def plan(self) -> Plan:
        """The plan, after the run."""
        lost = self._grids.keys() - self._made.keys()
        if lost:
            raise UserError(
                "quantization-aware training: the features of this network cannot be traced;"
                " use post-training quantization"
            )
        kept = [site for index, site in enumerate(self._sites) if index not in self._normalized]
        numbers = {old: new for new, old in enumerate(sorted({grid for *_, grids in kept for grid in grids}))}
        placed = {self._made[key]: numbers[grid] for key, grid in self._grids.items() if grid in numbers}
        steps = [Step(*call, placed.get(i)) for i, call in enumerate(self._calls)]
        sites = [Site(kind, weight, tuple(map(numbers.__getitem__, grids))) for kind, weight, grids in kept]
        return Plan(tuple(sites), tuple(steps), placed.get(-1))

    def _record(self, call: tuple[str, str], inputs: list[_Key], x: Tensor) -> Tensor:
        function, output = call[0], self._key(x)
        if function == "conv2d":
            grids = [self._grid(inputs[0])]
            self._sites.append(("Conv", call[1], grids))
            self._written[output] = grids
            self._features.add(output)
        elif function == "add" and len(inputs) == 2 and self._features.issuperset(inputs):
            self._sums[output] = len(self._sites)
            self._sites.append(("Add", "", [self._grid(key) for key in inputs]))
        elif function in _ARRANGES and inputs[0] in self._sums:
            self._sums[output] = self._sums[inputs[0]]
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
        self._alive.append(x)  # otherwise another tensor could get its id
        return id(x), x._version


class _Simulator(TorchFunctionMode):
    """Quantizes the tensors in a plan as soon as they are computed."""

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
    """The name of a function, without the underscore of in-place ones, and of a convolution's weight parameter."""
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
    """The result of a torch function, with `change` applied to every map N×C×H×W in it."""
    if isinstance(result, Tensor):
        return change(result) if result.ndim == 4 and result.is_floating_point() else result
    if type(result) in (tuple, list):
        return type(result)(_on_maps(value, change) for value in result)
    return result
