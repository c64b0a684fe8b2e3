"""Description of this machine: measured figures mean nothing without it."""

import importlib.metadata
import os
import platform

from deploy import host

NOTABLE_FLAGS = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)
"""CPU flags that decide the speed of a small network: vector width, 8-bit and bf16 arithmetic."""
PACKAGES = (
    *("edgedistill", "numpy", "pillow", "onnxruntime", "msgspec", "rasterio"),
    *("openvino", "tensorrt", "tensorrt-rtx", "cuda-bindings", "torch", "torchvision", "timm", "onnx"),
)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def describe() -> dict[str, object]:
    """Describe CPU, memory, operating system, Python and installed packages, without importing any of them.

    Returns:
        Values for JSON; those that the system does not report are None. `usable_cores` is the number of cores that this
        process may run on, `cpu_quota` the limit of its container in cores.
    """
    flags = host.cpu_flags()
    return {
        "device": host.device() or None,
        "cpu": host.cpu_name() or None,
        "architecture": platform.machine(),
        "cpu_flags": [flag for flag in NOTABLE_FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "usable_cores": host.usable_cores(),
        "cpu_quota": host.cpu_quota(),
        "frequency_governor": host.read_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()
        or None,
        "memory_bytes": _memory_bytes(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "environment": {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
    }


def summary(machine: dict[str, object]) -> str:
    """One line for the head of a table."""
    packages = machine["packages"]
    assert isinstance(packages, dict)
    parts = (
        machine["device"] or machine["cpu"] or machine["architecture"],
        f"{machine['usable_cores'] or machine['cores']} cores",
        " ".join(machine["cpu_flags"]) if isinstance(machine["cpu_flags"], list) else "",
        f"Python {machine['python']}",
        *(f"{name} {packages[name]}" for name in ("onnxruntime", "openvino") if name in packages),
    )
    return ", ".join(str(part) for part in parts if part)


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
