"""The ways to run a bundle's network on a CPU: backend, precision, threads."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from deploy import host
from deploy.backends.engine import CPU_MODELS
from deploy.bundle.manifest import MODEL

BF16 = "bf16"
"""The fp32 model, computed in bf16 by OpenVINO; only `auto` takes it, where it measured that it is right."""
BF16_FLAGS = ("amx_bf16", "avx512_bf16")
"""Features of CPUs that compute in bf16; without them OpenVINO would only emulate it."""


class Setting(msgspec.Struct, frozen=True, order=True):
    """One way to run the network."""

    backend: str
    precision: str
    threads: int | None = None
    """Threads of one call; None: the backend's choice."""
    spinning: bool = True
    """Whether threads of ONNX Runtime wait for the next operator without sleeping; OpenVINO has no such choice."""

    @property
    def name(self) -> str:
        """`Engine.name`: backend and precision."""
        return f"{self.backend} {self.precision}"

    def file(self, folder: Path) -> Path:
        """The bundle's file that it runs."""
        return folder / (MODEL if self.precision == BF16 else CPU_MODELS[self.precision])

    def __str__(self) -> str:
        threads = {None: "", 1: ", 1 thread"}.get(self.threads, f", {self.threads} threads")
        return self.name + threads + ("" if self.spinning else ", without spinning")


def computes_bf16() -> bool:
    """Whether this CPU has instructions for bf16 that OpenVINO uses."""
    return any(flag in host.cpu_flags() for flag in BF16_FLAGS)


def variants(setting: Setting) -> list[Setting]:
    """The other numbers of threads and kinds of waiting that are worth trying, the most promising first.

    Threads: the physical cores, half of them, a quarter, … and one. A number that the setting names is not varied.
    """
    counts: Sequence[int | None] = [setting.threads]
    if setting.threads is None:
        counts = [None, *_halves(host.physical_cores())]
    found = [msgspec.structs.replace(setting, threads=count) for count in counts]
    if setting.backend == "onnxruntime":
        found += [msgspec.structs.replace(one, spinning=False) for one in found if one.threads != 1]
    return [one for one in found if one != setting]


def _halves(cores: int) -> list[int]:
    """Cores, cores / 2, cores / 4, … down to 1."""
    counts = [cores]
    while counts[-1] > 1:
        counts.append(counts[-1] // 2)
    return counts
