"""Facts about this machine, as far as the operating system reports them. Imports nothing heavy."""

import math
import os
import platform
from pathlib import Path


def read_text(path: str) -> str:
    """Read a file of the system; "" where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def device() -> str:
    """Model of the board, such as a Jetson; "" on a PC."""
    return read_text("/proc/device-tree/model").strip("\0\n")


def cpu_name() -> str:
    """Model of the CPU."""
    return _field("model name") or platform.processor()


def cpu_flags() -> tuple[str, ...]:
    """CPU features by the kernel's names, such as "avx512_vnni"; empty where the system does not report them."""
    return tuple((_field("flags") or _field("Features")).split())  # x86, ARM


def usable_cores() -> int | None:
    """Number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def physical_cores() -> int:
    """Number of physical cores that this process may use: hyper-threads do not count, a container's limit does."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    siblings = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    cores = len({read_text(siblings.format(number)) or number for number in usable})
    return max(1, min(cores, math.ceil(cpu_quota() or cores)))


def cpu_quota() -> float | None:
    """CPU limit of the container in cores (cgroup v2); None where there is none."""
    quota, _, period = read_text("/sys/fs/cgroup/cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() else None


def _field(name: str) -> str:
    """The first value of a `name : value` line of /proc/cpuinfo."""
    for line in read_text("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
