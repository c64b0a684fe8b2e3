"""Make an engine of TensorRT from its bytes, and read what it takes and returns."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from deploy.backends.gpu_options import GpuOptions
from deploy.backends.tensorrt_gpu.execution_lane import Tensor, first_error
from deploy.backends.tensorrt_gpu.log import listen, logger
from deploy.bundle.engine_files import RebuildNeeded, Sidecar
from deploy.errors import UserError


def deserialize(
    engine: Path, plan: bytes, sidecar: Sidecar, library: Any, options: GpuOptions
) -> tuple[Any, Any]:
    """TensorRT's `Runtime` and `ICudaEngine` for the bytes of a trusted engine.

    Args:
        engine: its path, for errors.
        plan: its bytes.
        sidecar: its sidecar.
        library: the module `tensorrt` or `tensorrt_rtx`.
        options: how it is opened.

    Raises:
        RebuildNeeded: TensorRT refuses it.
        UserError: TensorRT does not start on this GPU.
    """
    with listen(library) as messages:
        runtime = _make_runtime(library, sidecar, options)
        loaded = runtime.deserialize_cuda_engine(plan)
    if loaded is None:
        version = f"{sidecar.backend} {library.__version__}"
        why = first_error(messages)
        raise RebuildNeeded(f"{engine}: {version} cannot load it ({why}); build it again")
    return runtime, loaded


def _make_runtime(library: Any, sidecar: Sidecar, options: GpuOptions) -> Any:
    try:
        runtime = library.Runtime(logger(library))
    # "factory function returned nullptr": the driver does not fit this version
    except (TypeError, RuntimeError) as error:
        version, why = f"{sidecar.backend} {library.__version__}", " ".join(str(error).split())
        raise UserError(f"{version} cannot start on this GPU ({why}); update the GPU's driver") from error
    runtime.engine_host_code_allowed = options.allow_host_code
    if (dla_core := sidecar.options.get("dla_core")) is not None:
        runtime.DLA_core = dla_core
    return runtime


def read_tensors(path: Path, engine: Any, library: Any, needed: Collection[str]) -> list[Tensor]:
    """The input, then the outputs. Raises `RebuildNeeded` if those that are `needed` are not among them."""
    found: dict[bool, list[Tensor]] = {True: [], False: []}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        dtype = np.dtype(library.nptype(engine.get_tensor_dtype(name)))
        is_input = engine.get_tensor_mode(name) == library.TensorIOMode.INPUT
        found[is_input].append(Tensor(name, dtype, tuple(engine.get_tensor_shape(name))[1:]))
    tensors = [*found[True], *found[False]]
    names = {tensor.name for tensor in found[False]}
    varying = any(min(tensor.shape, default=1) < 1 for tensor in tensors)
    if len(found[True]) != 1 or not names.issuperset(needed) or varying:
        listed = ", ".join(f"{tensor.name} {tensor.shape}" for tensor in tensors)
        raise RebuildNeeded(
            f"{path}: has {listed}; needs one input, {' and '.join(needed)} of fixed size; build it again"
        )
    return tensors


def read_batches(engine: Any, name: str) -> tuple[int, int]:
    """The smallest and the largest batch."""
    fixed = engine.get_tensor_shape(name)[0]
    if fixed > 0:
        return fixed, fixed
    smallest, _, largest = engine.get_tensor_profile_shape(name, 0)
    return smallest[0], largest[0]
