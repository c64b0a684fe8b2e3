"""All rules of the linter, and the functions that run them."""

from collections.abc import Callable, Iterator
from pathlib import Path

from deploy.errors import UserError
from deploy.lint import dla, operators, quantized, residuals, shapes
from deploy.lint.finding import TARGETS, Finding
from deploy.lint.graph import Graph
from deploy.lint.reading import read_graph

Rule = Callable[[Graph, str], Iterator[Finding]]
"""A rule checks a model for a target; its docstring names its source."""
RULES: tuple[Rule, ...] = (*shapes.RULES, *operators.RULES, *quantized.RULES, *residuals.RULES, *dla.RULES)


def lint(model: bytes, target: str, folder: Path | None = None) -> list[Finding]:
    """Find what a target will refuse or handle badly in an ONNX model.

    Args:
        model: the bytes of the file.
        target: one of `TARGETS`.
        folder: where its external data are, if it has any.

    Returns:
        The findings, in the order of `RULES`.

    Raises:
        UserError: `model` is not an ONNX model, or `target` is unknown.
    """
    if target not in TARGETS:
        raise UserError(f"target {target!r}: is unknown; choose one of {', '.join(TARGETS)}")
    return check(read_graph(model, folder), target)


def check(graph: Graph, target: str) -> list[Finding]:
    """The findings of all rules."""
    return [finding for rule in RULES for finding in rule(graph, target)]
