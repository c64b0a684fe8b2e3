"""What `edgedistill build` was given on its command line, as the options that engines are built and opened with."""

from typing import TYPE_CHECKING

from deploy.backends.gpu_options import GpuOptions
from deploy.build.options import BuildCommand

if TYPE_CHECKING:
    from deploy.backends.tensorrt_gpu.builder import BuildOptions


def compiler_options(command: BuildCommand, backend: str) -> "BuildOptions":
    """How the engine is built.

    Raises:
        UserError: as `BuildOptions`.
    """
    from deploy.backends.tensorrt_gpu.builder import BuildOptions  # start-up time: only for TensorRT

    flags = command.tensorrt
    return BuildOptions(
        backend=backend,  # pyright: ignore[reportArgumentType] - choices of the parser
        precision=command.precision,
        batch=flags.batch or (1, 1, 1),
        workspace_mb=flags.workspace,
        timing_cache=flags.timing_cache and flags.timing_cache.resolve(),
        targets=tuple(filter(None, (flags.targets or "").split(","))),
        hardware_compatible=flags.hardware_compatible or "",
        version_compatible=flags.version_compatible,
        dla_core=flags.dla,
        allow_gpu_fallback=not flags.no_gpu_fallback,
        dla_pools=flags.dla_pool_mib or "",
        optimization_level=flags.optimization_level,
        tf32=not flags.no_tf32,
        device=flags.device or 0,
    )


def gpu_options(command: BuildCommand) -> GpuOptions:
    """How the engine is opened to verify it."""
    flags = command.tensorrt
    return GpuOptions(
        flags.device or 0, cuda_graph=flags.cuda_graph, allow_host_code=flags.version_compatible
    )
