"""Findings of the linter, and the targets they are about."""

from typing import Literal, get_args

import msgspec

Level = Literal["error", "warning", "note"]
Target = Literal["tensorrt-10", "tensorrt-11", "tensorrt-rtx", "dla", "onnxruntime", "openvino"]

TARGETS: tuple[Target, ...] = get_args(Target)
"""tensorrt-10 means 10.3 (JetPack 6) and later, dla the accelerator of a Jetson under TensorRT 10,
onnxruntime and openvino for their CPU backends."""
TENSORRT: tuple[Target, ...] = TARGETS[:4]
"""Targets whose files pass TensorRT's ONNX parser."""
CPU: tuple[Target, ...] = TARGETS[4:]


class Finding(msgspec.Struct, frozen=True):
    """One thing in a file that a target refuses or handles badly."""

    level: Level
    """error: the target refuses the file. warning: it runs slower or less accurately than meant. note: a hint."""
    rule: str
    """Id of the rule, such as "int32-bias"."""
    where: str
    """Operator type and name of a node, the name of a tensor, or "model"."""
    message: str
    """The problem and its reason."""
    remedy: str
    """How to fix it."""
