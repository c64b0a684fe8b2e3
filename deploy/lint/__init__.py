"""`edgedistill lint`: predict how compilers will handle an ONNX file, on any machine.

`lint` returns the findings of one model for one target, `predict_int8_coverage` how much of it will run in INT8.
This package needs the `onnx` library, so `import deploy` never imports it.
"""

from deploy.lint.command import lint_command
from deploy.lint.coverage import Int8Coverage, predict_int8_coverage
from deploy.lint.finding import TARGETS, Finding
from deploy.lint.reading import read_graph
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
