"""Description of this machine for benchmark reports: a figure without it means nothing."""

import importlib.metadata
import os
import platform
from pathlib import Path

# What decides the speed of a small network: vector width, 8-bit and bf16 arithmetic.
NOTABLE_FLAGS = (
    *(
        "avx2",
        "avx_vnni",
        "avx512f",
        "avx512_vnni",
        "avx512_bf16",
        "avx512_fp16",
        "amx_tile",
        "amx_int8",
        "amx_bf16",
    ),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)
PACKAGES = (
    *("edgedistill", "numpy", "pillow", "onnxruntime", "msgspec"),
    *("openvino", "tensorrt", "tensorrt-rtx", "cuda-bindings", "torch", "torchvision", "timm", "onnx"),
)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def describe() -> dict[str, object]:
    """CPU, memory, operating system, Python and versions of the packages installed, as JSON. Imports none of them.

    Values that the system does not tell are None; `usable_cores` are those that this process may run on, and
    `cpu_quota` is the limit of its container, in cores.
    """
    cpuinfo = _read("/proc/cpuinfo")
    flags = set((_field(cpuinfo, "flags") or _field(cpuinfo, "Features") or "").split())
    return {
        "device": _read("/proc/device-tree/model").strip("\0\n") or None,
        "cpu": _field(cpuinfo, "model name") or platform.processor() or None,
        "architecture": platform.machine(),
        "cpu_flags": [flag for flag in NOTABLE_FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "cpu_quota": _cpu_quota(),
        "frequency_governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None,
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


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _field(cpuinfo: str, name: str) -> str | None:
    """The first value of a `name : value` line."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def _cpu_quota() -> float | None:
    """Cores that a Linux control group grants; None without a limit."""
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() else None


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
