"""TensorRT and TensorRT-RTX: open engines that `edgedistill build` compiled for this GPU.

The GPU is probed before TensorRT is imported: on a machine without a driver, TensorRT's runtime ends the process with a
segmentation fault. Not run on this project's CI, which has no GPU: its tests check every call against the signatures of
the real libraries.
"""

from pathlib import Path

from deploy.backends.core import CORE
from deploy.backends.gpu_options import DEFAULT, GpuOptions
from deploy.backends.tensorrt_gpu.compatibility import (
    UntrustedEngine,
    build_command,
    check_fits,
    check_trusted,
    full_name,
    tuned_for,
)
from deploy.backends.tensorrt_gpu.core_engine import CoreEngine
from deploy.backends.tensorrt_gpu.cuda import open_cuda
from deploy.backends.tensorrt_gpu.cuda_interface import Device
from deploy.backends.tensorrt_gpu.packages import check_cuda_major, import_tensorrt
from deploy.backends.tensorrt_gpu.trt_engine import TrtEngine
from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.engine_files import RebuildNeeded, Sidecar, list_engines, read_engine, read_sidecar
from deploy.errors import UserError, warn

PRECISIONS = ("int8", "fp8", "fp16", "fp32")
"""In the order in which "auto" tries them."""


def open_trt(
    bundle: Path,
    backend: str,
    precision: str = "auto",
    *,
    engine: Path | None = None,
    provider: str = "auto",
    options: GpuOptions = DEFAULT,
) -> TrtEngine:
    """Open the bundle's best engine that is trusted, fits this machine and did not fail its accuracy gate.

    Of one precision it is the one for the smallest batch, and of equals the newest (`list_engines`).

    Args:
        bundle: folder of the bundle.
        backend: "tensorrt" or "tensorrt-rtx".
        precision: "auto" takes the lowest that has a fitting engine, with a warning if the bundle has a lower one.
        engine: open this engine, whether it passed its gate or not.
        provider: one of `deploy.backends.tensorrt_gpu.cuda.PROVIDERS`, or "auto".
        options: GPU, trust, and how to run.

    Raises:
        UserError: there is no engine, or none is trusted and fits (another model, version or GPU, a damaged file); the
            message then has the command that builds one. Also if there is no such GPU, or the library is not installed.
    """
    manifest = read_manifest(bundle)
    candidates = _candidates(bundle, backend, precision, engine)
    cuda = open_cuda(provider, options.device)
    check_cuda_major(backend, cuda.device)
    library = import_tensorrt(backend)
    refusals: list[tuple[Sidecar, str]] = []
    for path, side in candidates:
        try:
            check_fits(path, side, manifest, cuda.device, library.__version__, judged=engine is not None)
            plan = read_engine(path, side)
            check_trusted(path, side, options)
            if CORE in side.options:
                opened = CoreEngine(path, plan, side, cuda, library, options, manifest.input)
            else:
                opened = TrtEngine(path, plan, side, cuda, library, options)
        except (RebuildNeeded, UntrustedEngine) as error:
            refusals.append((side, f"{error}: {build_command(bundle, side, cuda.device)}"))
            continue
        except UserError as error:
            refusals.append((side, str(error)))
            continue
        _warn_of(bundle, path, side, refusals, cuda.device)
        return opened
    raise UserError(refusals[0][1])


def _warn_of(
    bundle: Path, path: Path, side: Sidecar, refusals: list[tuple[Sidecar, str]], gpu: Device
) -> None:
    """Say that a better engine was passed over, or that this one is for another GPU."""
    # An engine for another machine beside one for this machine needs no warning.
    passed_over = [
        why for other, why in refusals if other.precision != side.precision or other.passed is False
    ]
    if passed_over:
        warn(f"{passed_over[0]}; running {path.name} instead")
    if other := tuned_for(side, gpu):
        command = build_command(bundle, side, gpu)
        warn(f"{path}: its kernels were chosen on {other}, this GPU is {full_name(gpu)}: {command}")


def _candidates(
    bundle: Path, backend: str, precision: str, engine: Path | None
) -> list[tuple[Path, Sidecar]]:
    """The requested engines, in the order in which they are tried. Raises `UserError` if there are none."""
    damaged: list[str] = []
    found = [(engine, read_sidecar(engine))] if engine else list_engines(bundle, backend, refusals=damaged)
    wanted = PRECISIONS if precision == "auto" else (precision,)
    found = [one for one in found if one[1].backend == backend and one[1].precision in wanted]
    if found:
        return sorted(found, key=lambda one: wanted.index(one[1].precision))
    if damaged:  # its backend and precision are unknown
        raise UserError(damaged[0])
    which = backend if precision == "auto" else f"{backend} {precision}"
    command = f"edgedistill build {bundle} --backend {backend} --precision {wanted[0]}"
    raise UserError(f"{engine or bundle}: has no engine for {which}; build one: {command}")
