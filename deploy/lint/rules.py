"""All rules, and running them."""

from collections.abc import Callable, Iterator
from pathlib import Path

from deploy.errors import UserError
from deploy.lint import dla, operators, quantized, shapes
from deploy.lint.finding import TARGETS, Finding
from deploy.lint.graph import Graph, read_graph

Rule = Callable[[Graph, str], Iterator[Finding]]
"""A rule looks at a model for a target; its docstring names the source of what it claims."""
RULES: tuple[Rule, ...] = (*shapes.RULES, *operators.RULES, *quantized.RULES, *dla.RULES)


def lint(model: bytes, target: str, folder: Path | None = None) -> list[Finding]:
    """What `target`, one of `TARGETS`, will refuse or do badly with a serialized ONNX model, in the order of `RULES`.

    `folder` holds its external data, if it has any. `UserError` when `model` is no ONNX model or `target` is not known.
    """
    if target not in TARGETS:
        raise UserError(f"target {target!r}: is not known; choose one of {', '.join(TARGETS)}")
    return check(read_graph(model, folder), target)


def check(graph: Graph, target: str) -> list[Finding]:
    """The findings of all rules."""
    return [finding for rule in RULES for finding in rule(graph, target)]
