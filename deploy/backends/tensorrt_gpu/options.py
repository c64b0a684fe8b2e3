"""Build options of an engine, and checks that TensorRT and this machine support them."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from deploy.bundle.engine_files import TensorRT
from deploy.errors import UserError

TURING = "sm75"
"""The only target that is never chosen by default: TensorRT-RTX 1.7.1 computes no convolution in INT8 for it, has no
fp32 matrix products (which a folded pyramid needs), and disables both for the other targets of the same engine."""

FP8_FROM = 89
"""The first compute capability (Ada) with FP8, as in "sm89"."""

POOLS = {"sram": "DLA_MANAGED_SRAM", "local": "DLA_LOCAL_DRAM", "global": "DLA_GLOBAL_DRAM"}
"""Memory pools of a DLA, and their members of `MemoryPoolType`."""

CURRENT = "current"
"""Target: the GPU of this machine."""


@dataclass(frozen=True)
class BuildOptions:
    """How to build an engine.

    Raises:
        UserError: the options are not possible on any machine. `deploy.backends.tensorrt_gpu.builder.check_machine`
            checks them against this machine and its TensorRT.
    """

    backend: TensorRT = "tensorrt"
    precision: Literal["fp32", "fp16", "int8", "fp8"] = "int8"
    batch: tuple[int, int, int] = (1, 1, 1)
    """Smallest, best and largest batch. All equal: a fixed batch, which compiles to fewer and faster kernels."""
    workspace_mb: int | None = None
    """Limit of the scratch memory that a kernel may use, in MiB; None: no limit."""
    timing_cache: Path | None = None
    """`tensorrt`: file of measured kernels, read before the build and updated after it."""
    targets: tuple[str, ...] = ()
    """TensorRT-RTX: compute capabilities to compile for, such as ("sm86", "sm89"), or ("current",). Empty: this
    machine's GPU; where there is none, all that TensorRT-RTX lists from Ampere (sm80) on, in one engine."""
    hardware_compatible: Literal["", "ampere+", "same-cc"] = ""
    """`tensorrt`: run on every GPU from Ampere on, or on every GPU of the same compute capability."""
    version_compatible: bool = False
    """`tensorrt`: run with later versions of the same major version too."""
    dla_core: int | None = None
    """`tensorrt` on a Jetson: run on this deep learning accelerator (DLA)."""
    allow_gpu_fallback: bool = True
    """With a DLA: layers that it cannot run go to the GPU instead of failing the build."""
    dla_pools: str = ""
    """With a DLA: MiB of its memory pools, such as "sram=1,local=1024,global=512"; "": TensorRT's defaults."""
    optimization_level: int | None = None
    """`tensorrt`: how long to search for fast kernels, 0..5; None: TensorRT's default, 3."""
    tf32: bool = True
    """fp32: let GPUs from Ampere on compute in TF32, whose mantissa has 10 bits; False: in full float32, slower."""
    device: int = 0
    """Number of the GPU to compile on, among those that the driver shows."""

    def __post_init__(self) -> None:
        _one_of("backend", self.backend, ("tensorrt", "tensorrt-rtx"))
        _one_of("precision", self.precision, ("fp32", "fp16", "int8", "fp8"))
        _one_of("hardware_compatible", self.hardware_compatible or "", ("", "ampere+", "same-cc"))
        if len(self.batch) != 3 or not 1 <= self.batch[0] <= self.batch[1] <= self.batch[2]:
            raise UserError(f"batch {self.batch}: give smallest ≤ best ≤ largest, from 1, such as (1, 4, 8)")
        if self.workspace_mb is not None and self.workspace_mb < 1:
            raise UserError(
                f"workspace_mb {self.workspace_mb}: give at least 1, or leave it out for no limit"
            )
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise UserError(f"optimization_level {self.optimization_level}: give 0 (quick) to 5 (thorough)")
        if not self.tf32 and self.precision != "fp32":
            raise UserError(f"tf32: is for fp32, not for {self.precision}; leave it out")
        if self.backend == "tensorrt":
            self._check_full()
        else:
            self._check_rtx()

    @property
    def dla_alone(self) -> bool:
        """Whether the engine is for a DLA without a GPU beside it, which runs only the core of a network."""
        return self.dla_core is not None and not self.allow_gpu_fallback

    def _check_full(self) -> None:
        if self.dla_core is None and (self.dla_pools or not self.allow_gpu_fallback):
            raise UserError("dla_pools and no GPU fallback: are for a DLA; give its core, or leave them out")
        pools(self.dla_pools)
        if self.targets:
            raise UserError(
                f"targets {', '.join(self.targets)}: tensorrt compiles for the GPU that it runs on;"
                " leave them out, or use backend tensorrt-rtx"
            )
        if self.dla_core is not None and self.precision != "fp16":
            # Sources: deploy/lint/dla.py.
            why = (
                "takes INT8 by other means than Q and DQ"
                if self.precision == "int8"
                else f"has no {self.precision}"
            )
            raise UserError(f"dla_core: a DLA {why}; build with --precision fp16")
        if self.dla_core is not None and self.batch[0] != self.batch[2]:
            raise UserError(f"dla_core: a DLA needs a fixed batch, not {self.batch}; give one size")

    def _check_rtx(self) -> None:
        refused = {
            "timing_cache": (self.timing_cache, "it measures no kernels when it builds"),
            "hardware_compatible": (self.hardware_compatible, "name the GPUs by targets instead"),
            "version_compatible": (self.version_compatible, "build again with the version on the device"),
            "dla_core": (self.dla_core is not None, "DLAs need backend tensorrt"),
            "dla_pools": (self.dla_pools, "DLAs need backend tensorrt"),
            "optimization_level": (self.optimization_level is not None, "it compiles alike at every level"),
        }
        for name, (given, why) in refused.items():
            if given:
                raise UserError(f"{name}: tensorrt-rtx does not offer it ({why}); leave it out")

    def deciding(self) -> dict[str, str | int | float | bool | None]:
        """The options that determine the engine, apart from backend, precision, batch and device."""
        apart = ("backend", "precision", "batch", "targets", "timing_cache", "device")
        if self.precision != "fp32":
            apart = (*apart, "tf32")
        if not self.dla_pools:
            apart = (*apart, "dla_pools")
        return {name: value for name, value in asdict(self).items() if name not in apart}


def pools(text: str) -> dict[str, int]:
    """Bytes of the pools in a text such as "sram=1,local=1024,global=512", in MiB.

    Raises:
        UserError: an unknown pool, or a size that is no power of two from 4 KiB on.
    """
    found: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.strip().partition("=")
        number = re.fullmatch(r"\d+(\.\d+)?", value)
        size = float(value) * (1 << 20) if number else 0.0
        if name not in POOLS or size < 4096 or size != int(size) or int(size).bit_count() != 1:
            raise UserError(
                f"dla_pools {part}: give MiB, powers of two, as in sram=1,local=1024,global=512 (the defaults)"
            )
        found[name] = int(size)
    return found


def resolve_targets(trt: Any, options: BuildOptions, has_gpu: bool) -> tuple[str, ...]:
    """Determine which compute capabilities to compile for.

    Args:
        trt: the module `tensorrt` or `tensorrt_rtx`.
        options: the build options.
        has_gpu: whether this machine has a GPU.

    Returns:
        Compute capabilities to compile for ahead of time, sorted; or ("current",) for this machine's GPU.

    Raises:
        UserError: a target is unknown, or "current" is combined with others or requested without a GPU.
    """
    if options.backend == "tensorrt":
        return (CURRENT,)
    known = [name.lower() for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    wanted = {target.strip().lower() for target in options.targets}
    least = FP8_FROM if options.precision == "fp8" else 0
    if not wanted:
        usual = tuple(name for name in known if name != TURING and _number(name) >= least)
        return (CURRENT,) if has_gpu else usual
    for target in sorted(wanted - {CURRENT}):
        if target not in known:
            raise UserError(
                f"target {target}: TensorRT-RTX {trt.__version__} compiles for {', '.join(known)} or {CURRENT}"
            )
        if _number(target) < least:
            raise UserError(
                f"target {target}: has no fp8, which begins with sm{least}; choose another precision for it"
            )
    if CURRENT in wanted and len(wanted) > 1:
        raise UserError(f"targets {', '.join(sorted(wanted))}: {CURRENT} cannot be combined with others")
    if CURRENT in wanted and not has_gpu:
        raise UserError(f"target {CURRENT}: there is no NVIDIA GPU here; name targets: {', '.join(known)}")
    return tuple(sorted(wanted, key=known.index) if CURRENT not in wanted else wanted)


def _number(target: str) -> int:
    return int(target.removeprefix("sm"))


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"{name} {value!r}: choose one of {', '.join(filter(None, allowed))}")
