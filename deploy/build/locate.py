"""Where an engine goes wrong: the first tensor that differs from ONNX Runtime's, found by marking tensors as outputs.

Marking all tensors at once would keep the compiler from fusing anything, and with that hide most faults. So a few are
marked at a time, evenly spaced, and the search goes on between the last that agrees and the first that differs. What
compiles and runs a network is an argument: TensorRT, or anything else.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from deploy.backends.engine import TENSORRT_MODELS
from deploy.backends.gpu_options import GpuOptions
from deploy.build.golden_check import write_optional
from deploy.bundle.engine_files import engines_folder
from deploy.bundle.golden_file import read_golden
from deploy.files.atomic import write_json
from deploy.quantize.options import Say
from deploy.quantize.simulation import simulated
from deploy.table import format_table

if TYPE_CHECKING:
    from deploy.backends.tensorrt_gpu.options import BuildOptions

MARKS = 6
"""Tensors marked at a time: a network of 150 takes three rounds."""
LIMITS = {"fp32": 0.01, "fp16": 0.01, "int8": 0.15, "fp8": 0.15}
"""Differences (see `difference`) above which a tensor counts as different: some times what rounding does. On a
PSPNet-ResNet18 of CamVid, over about 100 tensors, TF32 makes at most 0.0009 against fp32, half precision 0.0011, and
the rest of the INT8 network in half precision instead of fp32 0.047."""

Outputs = Mapping[str, np.ndarray]
Run = Callable[[bytes], Outputs]
"""Compiles an ONNX file, and returns all its outputs for the images."""


class Compared(msgspec.Struct, frozen=True):
    """A tensor in both."""

    tensor: str
    operator: str
    """The node that computes it."""
    difference: float | None
    """None: not a number, or infinite, where the reference is finite."""


class Located(msgspec.Struct, frozen=True):
    """What the search has found."""

    limit: float
    first: Compared | None
    """The first tensor that differs; None if none does."""
    last_good: Compared | None
    """The last before it that agrees; None if the first tensor differs."""
    compared: tuple[Compared, ...]
    """All that were compared, in the order of the network, at last logits and labels."""
    rounds: int
    """How often the network was compiled."""


def locate_in_engine(bundle: Path, options: "BuildOptions", gpu: GpuOptions, say: Say = print) -> Located:
    """Compare an engine of TensorRT with ONNX Runtime on the golden inputs, print the result, and write it to
    `engines/`.

    Args:
        bundle: folder of the bundle, whose files were verified.
        options: how the engine was built; it is built again with other outputs.
        gpu: how it is opened.
        say: prints lines.

    Raises:
        UserError: as `locate`.
    """
    # start-up time: only builds for TensorRT need it
    from deploy.backends.tensorrt_gpu.scratch import compile_and_open

    source, images = bundle / TENSORRT_MODELS[options.precision], read_golden(bundle)["inputs"]

    def on_gpu(model: bytes) -> Outputs:
        with closing(compile_and_open(model, source, options, gpu)) as engine:
            return engine.all_outputs(images)

    def on_cpu(model: bytes) -> Outputs:
        return simulated(model).all_outputs(images)

    located = locate(source.read_bytes(), on_gpu, on_cpu, LIMITS[options.precision], say)
    say(text(located))
    path = engines_folder(bundle) / f"{options.backend}-{options.precision}.located.json"
    write_optional(path, lambda: write_json(path, located))
    return located


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Root mean square of the difference, as a share of that of what is expected; infinite for values that are not
    finite where they should be.
    """
    found, expected = (np.asarray(one, np.float64) for one in (found, expected))
    finite = np.isfinite(expected)
    if found.shape != expected.shape or not np.isfinite(found[finite]).all():
        return float("inf")
    apart = float(np.sqrt(np.mean((found[finite] - expected[finite]) ** 2))) if finite.any() else 0.0
    size = float(np.sqrt(np.mean(expected[finite] ** 2))) if finite.any() else 0.0
    return apart / size if size else float("inf") if apart else 0.0


def locate(model: bytes, run: Run, reference: Run, limit: float, say: Say = print) -> Located:
    """Find the first tensor of a network that differs.

    Where values differ and later agree again, as behind a ReLU that cuts the difference off, an earlier tensor than
    the one that is found may differ.

    Args:
        model: bytes of an ONNX file with the output `logits`.
        run: runs it on what is to be checked.
        reference: runs it on ONNX Runtime.
        limit: the largest difference that counts as equal.
        say: prints a line of progress.

    Raises:
        UserError: the network cannot be marked, compiled or run.
    """
    from deploy.quantize.marks import candidates, marked  # optional dependency: onnx

    found = candidates(model)
    seen: dict[int, Compared] = {}
    low, high, rounds = -1, len(found), 0
    logits = labels = None
    while logits is None or labels is None or high - low > 1:
        chosen = _spread(low, high)
        names = [found[index].tensor for index in chosen]
        with_marks, rounds = marked(model, names), rounds + 1
        values, expected = run(with_marks), reference(with_marks)
        for index in chosen:
            one = found[index]
            seen[index] = _compared(one.tensor, one.operator, values, expected)
        logits = _compared("logits", "output", values, expected)
        labels = _labels(values, expected)
        bad = [index for index in chosen if _differs(seen[index], limit)]
        say(f"locate: {len(names)} tensors compared, {len(bad)} differ by more than {100 * limit:g} %")
        low, high = _narrowed(low, high, chosen, bad)
        if high == len(found) and not _differs(logits, limit):
            first = labels if _differs(labels, limit) else None
            return Located(limit, first, first and logits, _in_order(seen, logits, labels), rounds)
    first = seen[high] if high < len(found) else logits
    return Located(limit, first, seen.get(low), _in_order(seen, logits, labels), rounds)


def text(located: Located) -> str:
    """The result in a few lines."""
    rows = [(one.tensor, one.operator, _percent(one)) for one in located.compared]
    table = format_table(("tensor", "computed by", "differs by"), rows)
    first, good = located.first, located.last_good
    if first is None:
        return (
            f"{table}\nno tensor differs by more than {100 * located.limit:g} %: with these outputs the network is"
            " right, so what goes wrong is a fusion that they prevent, or small differences that add up"
        )
    before = f"{good.operator} before it agrees" if good else "nothing before it was compared"
    where = f"{first.tensor}, computed by {first.operator} ({_percent(first)})"
    return f"{table}\nthe first that differs: {where}; {before}"


def _spread(low: int, high: int) -> list[int]:
    """At most `MARKS` numbers between two, evenly spaced."""
    count = min(MARKS, high - low - 1)
    return [low + (high - low) * (step + 1) // (count + 1) for step in range(count)]


def _narrowed(low: int, high: int, chosen: Sequence[int], bad: Sequence[int]) -> tuple[int, int]:
    """The last tensor that agrees, and the first that differs."""
    if bad:
        high = bad[0]
    return max((index for index in chosen if index < high), default=low), high


def _compared(tensor: str, operator: str, values: Outputs, expected: Outputs) -> Compared:
    share = difference(values[tensor], expected[tensor])
    return Compared(tensor, operator, share if np.isfinite(share) else None)


def _labels(values: Outputs, expected: Outputs) -> Compared:
    """Labels are numbers without an order: the share of those that differ."""
    same = values["labels"].shape == expected["labels"].shape
    share = float(np.mean(values["labels"] != expected["labels"])) if same else 1.0
    return Compared("labels", "output", share)


def _differs(one: Compared, limit: float) -> bool:
    return one.difference is None or one.difference > limit


def _percent(one: Compared) -> str:
    return "not finite" if one.difference is None else f"{100 * one.difference:.2f} %"


def _in_order(seen: Mapping[int, Compared], *outputs: Compared) -> tuple[Compared, ...]:
    return (*(seen[index] for index in sorted(seen)), *outputs)
