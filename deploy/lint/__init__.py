"""`edgedistill lint`: what a compiler will do with an ONNX file, foretold on any machine.

`lint` gives the findings of one model for one target; `foretell` the share of it that will run in INT8.
Needs the `onnx` library, so `import deploy` never imports it.
"""

from deploy.lint.command import lint_command
from deploy.lint.finding import TARGETS, Finding
from deploy.lint.forecast import Forecast, foretell
from deploy.lint.graph import read_graph
from deploy.lint.rules import lint

__all__ = ["TARGETS", "Finding", "Forecast", "foretell", "lint", "lint_command", "read_graph"]
