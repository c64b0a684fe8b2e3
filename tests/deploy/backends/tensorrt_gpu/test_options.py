"""Errors before any build: impossible options and missing packages."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy.backends.tensorrt_gpu import packages
from deploy.backends.tensorrt_gpu.builder import BuildOptions
from deploy.backends.tensorrt_gpu.packages import import_tensorrt
from deploy.backends.tensorrt_gpu.signs import Signs
from deploy.errors import UserError


@pytest.mark.parametrize(
    ("backend", "module", "extra"),
    [("tensorrt", "tensorrt", "tensorrt-cu12"), ("tensorrt-rtx", "tensorrt_rtx", "rtx-cu12")],
)
def test_missing_package_names_its_extra(monkeypatch, backend, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(packages, "look", lambda: Signs(driver="550.54.15"))
    with pytest.raises(UserError, match=rf"is not installed; pip install 'edgedistill\[{extra}\]'"):
        import_tensorrt(backend)


def test_broken_or_old_package(monkeypatch):
    def broken(name):
        raise OSError("libnvinfer.so.11: cannot open shared object file\nand more")

    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="8.6.1"))
    with pytest.raises(UserError, match=r"version 8\.6\.1 is too old"):
        import_tensorrt("tensorrt")
    monkeypatch.setattr(packages.importlib, "import_module", broken)
    with pytest.raises(UserError, match=r"cannot be loaded \(libnvinfer.so.11: .* file\); install it again"):
        import_tensorrt("tensorrt")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"backend": "onnx"}, "backend 'onnx': choose one of tensorrt, tensorrt-rtx"),
        ({"precision": "bf16"}, "precision 'bf16': choose one of fp32, fp16, int8"),
        ({"batch": (4, 2, 8)}, "smallest ≤ best ≤ largest"),
        ({"batch": (0, 1, 1)}, "smallest ≤ best ≤ largest"),
        ({"workspace_mb": 0}, "workspace_mb 0: give at least 1"),
        ({"optimization_level": 6}, "optimization_level 6: give 0"),
        ({"hardware_compatible": "all"}, "hardware_compatible 'all': choose one of ampere+, same-cc"),
        ({"tf32": False, "precision": "fp16"}, "tf32: is for fp32, not for fp16; leave it out"),
        ({"targets": ("sm86",)}, "targets sm86: tensorrt compiles for the GPU that it runs on"),
        ({"dla_core": 0, "precision": "fp32"}, "a DLA has no fp32; build with --precision fp16"),
        ({"dla_core": 0}, "a DLA takes INT8 by other means than Q and DQ; build with --precision fp16"),
        ({"dla_core": 0, "precision": "fp16", "batch": (1, 2, 4)}, "a DLA needs a fixed batch"),
        (
            {"backend": "tensorrt-rtx", "timing_cache": Path("x")},
            "timing_cache: tensorrt-rtx does not offer it",
        ),
        ({"backend": "tensorrt-rtx", "hardware_compatible": "ampere+"}, "name the GPUs by targets"),
        (
            {"backend": "tensorrt-rtx", "version_compatible": True},
            "version_compatible: tensorrt-rtx does not",
        ),
        ({"backend": "tensorrt-rtx", "dla_core": 0}, "DLAs need backend tensorrt"),
        ({"backend": "tensorrt-rtx", "dla_pools": "sram=1"}, "DLAs need backend tensorrt"),
        ({"dla_pools": "sram=1"}, "are for a DLA; give its core"),
        ({"allow_gpu_fallback": False}, "are for a DLA; give its core"),
        ({"backend": "tensorrt-rtx", "optimization_level": 0}, "it compiles alike at every level"),
    ],
)
def test_refuses_impossible_options(options, expected):
    with pytest.raises(UserError) as error:
        BuildOptions(**options)
    assert expected in str(error.value)


def test_options_are_values():
    assert BuildOptions() == BuildOptions("tensorrt", "int8", (1, 1, 1))
    assert hash(BuildOptions()) != hash(replace(BuildOptions(), workspace_mb=1))
