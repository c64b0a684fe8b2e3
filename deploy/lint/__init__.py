"""`edgedistill lint`: what a compiler will do with an ONNX file, foretold on any machine.

`lint` gives the findings of one model for one target; `predict_int8_coverage` the share of it that will run in INT8.
Needs the `onnx` library, so `import deploy` never imports it.
"""

from deploy.lint.command import lint_command
from deploy.lint.coverage import Int8Coverage, predict_int8_coverage
from deploy.lint.finding import TARGETS, Finding
from deploy.lint.graph import read_graph
from deploy.lint.rules import lint

__all__ = [
    "TARGETS",
    "Finding",
    "Int8Coverage",
    "lint",
    "lint_command",
    "predict_int8_coverage",
    "read_graph",
]
