"""Turn TensorRT's messages about a refused network into one line that a user can act on."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.backends.tensorrt_gpu.layer_report import LayerReport
from deploy.backends.tensorrt_gpu.log import ERROR, Message
from deploy.backends.tensorrt_gpu.options import TURING
from deploy.bundle.manifest import INT8
from deploy.errors import UserError

LONGEST = 240
"""Length to which a reason is cut, in characters."""


class Unexplained(UserError):
    """A failure that only the complete log may explain."""


def refusal(parser: Any, source: Path, title: str) -> UserError:
    """The error that says why the ONNX parser refused `source`. `title` is TensorRT's name and version."""
    if not parser.num_errors:
        return UserError(f"{source}: {title} cannot read it and does not say why; export the bundle again")
    error = parser.get_error(0)
    node, operator, said = error.node_name(), error.node_operator(), error.desc()
    if not operator:
        return UserError(
            f"{source}: is damaged or not an ONNX file ({reason(said)}); copy or export the bundle again"
        )
    where = f"{source}: {title} refuses node {node or '(unnamed)'} ({operator})"
    for pattern, remedy in _REMEDIES:
        if re.search(pattern, said):
            return UserError(f"{where}: {reason(said)}; {remedy}")
    # An operator that TensorRT does not implement, or a custom one.
    if said in ("", "false") or "Plugin not found" in said:
        said = "the operator is not supported"
    return UserError(f"{where}: {reason(said)}; {_AVOID}")


def failure(messages: Sequence[Message], source: Path, workspace_mb: int | None, title: str) -> UserError:
    """The error that says why the builder returned no engine, from what it logged.

    Args:
        messages: what TensorRT logged.
        source: path of the ONNX.
        workspace_mb: `BuildOptions.workspace_mb`.
        title: TensorRT's name and version.

    Returns:
        An `Unexplained` where the log has no known reason.
    """
    errors = [text for severity, text in messages if severity <= ERROR]
    # Without a driver, CUDA adds an error of its own to each error; such machines compile for others.
    errors = [text for text in errors if "cudaError 35" not in text] or errors
    whole = "\n".join(errors)
    if target := re.search(r"Cannot compile operation '(.+?)' for .*?\((SM\d+)\): (.+?)\. In ", whole):
        name, gpu, why = target.groups()
        return UserError(
            f"{source}: {title} cannot compile {name} for {gpu.lower()} ({why});"
            f" leave {gpu.lower()} out of the targets"
        )
    if re.search(r"workspace|OutOfMemory|out of memory|Out of memory", whole):
        return _out_of_memory(whole, source, workspace_mb, title)
    last = reason(errors[-1]) if errors else "it does not say why"
    return Unexplained(f"{source}: {title} cannot build it ({last})")


def not_quantized(
    report: LayerReport | None, source: Path, targets: Sequence[str], title: str, precision: str
) -> UserError | None:
    """The error for an INT8 or FP8 engine without a convolution in this precision; None for any other engine."""
    products = report.products if report and not report.unread else ()
    kinds = [product.precision for product in products if product.convolution]
    wanted = {"int8": "int8", "fp8": "float8"}.get(precision)
    if not kinds or wanted is None or {wanted, "?"} & set(kinds):
        return None
    if TURING in targets:
        return UserError(
            f"target {TURING}: {title} computes no convolution in {precision.upper()} in an engine for Turing;"
            f" leave {TURING} out of the targets, or choose another precision for it"
        )
    return UserError(
        f"{source}: {title} computes none of its {len(kinds)} convolutions in {precision.upper()};"
        f" make the model again (--precision {precision} --redo)"
    )


def reason(said: str) -> str:
    """The informative part of a message, without error codes, source files and failed conditions."""
    text = max(said.splitlines() or [""], key=lambda line: "Error Code" in line)
    if match := re.search(r"Error Code \d+: [^(]*(?:\((.*)\))?", text):
        text = match[1] or match[0]
    text = re.sub(r" In \w+ at /\S+$", "", text)
    text = re.sub(r"^Assertion failed: .*?: ", "", text).strip(" .")
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


_AVOID = "avoid it in the network and export again (edgedistill lint BUNDLE names what TensorRT refuses)"
_REMEDIES = (
    (
        r"Non-zero zero point|shiftIsAllZeros",
        f"this is the form of INT8 for CPUs: compile {INT8} instead, or make it again (--precision int8 --redo)",
    ),
    (
        r"input has type Int32 but must",
        "biases must not be quantized: make the INT8 model again (--precision int8 --redo)",
    ),
    (
        r"has type UInt8 but must",
        "cast the uint8 image to float before anything else is done with it: export the bundle again",
    ),
)
"""Patterns in a message, and the remedy for each."""


def _out_of_memory(said: str, source: Path, workspace_mb: int | None, title: str) -> UserError:
    asked = re.search(r"Requested size was (\d+) bytes", said)
    size = f" (it asks for {int(asked[1]) / 2**20:.0f} MiB)" if asked else ""
    if workspace_mb is None:
        return UserError(
            f"{source}: {title} ran out of memory{size}; close other programs, or build for a smaller batch"
        )
    return UserError(
        f"workspace_mb {workspace_mb}: too little for {title} to compile {source}{size};"
        " give more, or leave it out for no limit"
    )
