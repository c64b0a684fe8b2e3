"""TensorRT as its bindings document it: modules of versions that cannot be installed on every machine that runs tests.

Their classes have the methods, properties and enumerations of the real ones (`signatures/dump.py` says where they are
from), so `create_autospec` and `trt_fakes.checked` work on them as on real types. Nothing of them runs.
"""

import json
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "signatures"
VERSIONS = ("10.3", "11.4")

_NUMPY = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
}


def documented_tensorrt(version: str) -> ModuleType:
    """A module `tensorrt` of a version, such as "10.3"."""
    found = json.loads((FOLDER / f"tensorrt-{version}.json").read_text(encoding="utf-8"))
    module: Any = ModuleType("tensorrt")
    module.__version__ = found["version"]
    for name, members in found["enums"].items():
        setattr(module, name, IntEnum(name, members))
    for name, content in found["classes"].items():
        setattr(module, name, _kind(name, content))
    module.Dims = type("Dims", (tuple,), {})
    module.nptype = lambda kind: _NUMPY[kind.name]
    return module


def _kind(name: str, content: dict[str, Any]) -> type:
    attributes: dict[str, Any] = {
        method: _method(method, lines)
        for method, lines in content["methods"].items()
        if method not in ("__init__", "__del__")
    }
    attributes |= {
        one: property(lambda self: None, lambda self, value: None) for one in content["properties"]
    }
    attributes |= {one: IntEnum(one, members) for one, members in content["enums"].items()}
    return type(name, (), attributes | {"__init__": lambda self, *_: None})


def _method(name: str, lines: list[str]) -> Any:
    def method(self: object, *arguments: object, **named: object) -> None:
        raise NotImplementedError(f"{name} of a TensorRT that is not here")

    method.__name__, method.__doc__ = name, "\n".join(lines)
    return method
