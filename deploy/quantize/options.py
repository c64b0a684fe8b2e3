"""Options of INT8 quantization. Imports neither onnx nor ONNX Runtime."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from deploy.evaluation.receipt import INT8_BUDGET, Budget
from deploy.quantize.calibrators import CALIBRATORS

GRANULARITIES = ("layer", "block")
Form = Literal["cpu", "tensorrt"]
"""The two forms of an INT8 model: `deploy.quantize.qdq.cpu_form` and `deploy.quantize.tensorrt_form`. FP8 has one."""
Precision = Literal["int8", "fp8"]

Say = Callable[[str], None]
"""Prints a line of progress, or a table."""


@dataclass(frozen=True)
class Int8Options:
    """How `deploy.quantize.search.quantize` makes an INT8 or FP8 model."""

    budget: Budget = INT8_BUDGET
    """Largest loss of the score against the fp32 model, and smallest agreement with it."""
    calibrators: tuple[str, ...] = tuple(CALIBRATORS)
    """Names in `CALIBRATORS` to choose from."""
    granularity: str = "layer"
    """"layer", or "block" to rank the layers of a block and leave them in float together, which is faster."""
    sensitivity: bool = False
    """Rank the layers even if the budget is met."""
    keep_float: tuple[str, ...] = ()
    """Layers and blocks that always stay in float, by name, or "first" and "last"."""
    form: Form = "cpu"
    """The form that will run, by which calibrators and layers are ranked. Both have to meet the budget."""
    max_float: float = 0.5
    """Largest share of layers in float besides `keep_float`; more would leave little of INT8's speed."""
    precision: Precision = "int8"
    """FP8 needs a GPU from compute capability 8.9 on (`fp8_options`)."""


def fp8_options(budget: Budget, **others: Any) -> Int8Options:
    """Options of an FP8 model: floating point has room for the largest value, so nothing is clipped."""
    return Int8Options(budget, ("min-max",), form="tensorrt", precision="fp8", **others)
