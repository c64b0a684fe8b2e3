"""What this machine is, as far as its system tells. Imports nothing heavy."""

import os
import platform
from pathlib import Path


def read_text(path: str) -> str:
    """A file of the system; "" where there is none."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def device() -> str:
    """Model of the board, such as a Jetson's; "" on a PC."""
    return read_text("/proc/device-tree/model").strip("\0\n")


def cpu_name() -> str:
    """Model of the CPU."""
    return _field("model name") or platform.processor()


def cpu_flags() -> tuple[str, ...]:
    """What the CPU can do, by the kernel's names, such as "avx512_vnni"; empty where the system does not tell."""
    return tuple((_field("flags") or _field("Features")).split())  # x86, ARM


def usable_cores() -> int | None:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def cpu_quota() -> float | None:
    """Cores' worth of time that the container may use; None where it is not limited (cgroup v2)."""
    quota, _, period = read_text("/sys/fs/cgroup/cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() else None


def _field(name: str) -> str:
    """The first value of a `name : value` line of /proc/cpuinfo."""
    for line in read_text("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
