"""The interface of an engine, the names of backends and precisions, and the file of a bundle that each runs."""

from pathlib import Path
from typing import Protocol

import numpy as np

from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.engine_files import list_engines
from deploy.bundle.manifest import FP8, FP16, INT8, INT8_CPU, MODEL
from deploy.errors import UserError

CPU = ("onnxruntime", "openvino")
"""Backends that run the bundle's ONNX files; their packages have the same names."""
TENSORRT = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Backends that run an engine compiled by `edgedistill build`, and the Python module of each."""
ORT_GPU = {
    "onnxruntime-cuda": "CUDAExecutionProvider",
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
}
"""Backends that run the bundle's ONNX files on a GPU, and the execution provider of ONNX Runtime that each is."""
WITHOUT_ENGINES = (*CPU, *ORT_GPU)
"""Backends that run no compiled engine of the bundle."""
BACKENDS = ("auto", *CPU, *ORT_GPU, *TENSORRT)

CPU_MODELS = {"int8": INT8_CPU, "fp16": FP16, "fp32": MODEL}
"""The bundle's ONNX file that a CPU runs in each precision, in the order in which "auto" tries them."""
TENSORRT_MODELS = {"int8": INT8, "fp8": FP8, "fp16": FP16, "fp32": MODEL}
"""The bundle's ONNX file that TensorRT compiles for each precision."""
OUTPUTS = ("labels", "logits")
"""Outputs of every model: see `Engine.run`."""
PRECISIONS = ("auto", *TENSORRT_MODELS)


class Engine(Protocol):
    """A compiled network. `run` may be called from several threads at once."""

    @property
    def name(self) -> str:
        """Backend and precision, such as "onnxruntime int8"; its name in reports."""
        ...

    @property
    def file(self) -> Path | None:
        """The ONNX or engine file that it runs; None where it was created from bytes."""
        ...

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Run a batch.

        Args:
            batch: uint8 N×H×W×C or float32 N×C×H×W in raw image units, exactly as the bundle's input says.

        Returns:
            "labels", uint8 N×H×W, and "logits", float32 N×K×h×w, where h×w may be smaller than H×W (the network's
            stride).
        """
        ...


def cpu_precision(folder: Path, precision: str) -> str:
    """Resolve "auto" to the precision in which a CPU runs this bundle.

    Raises:
        UserError: the bundle lacks the precision.
    """
    files = read_manifest(folder).files
    if precision == "auto":
        return "int8" if INT8_CPU in files else "fp32"
    if precision not in CPU_MODELS:
        raise UserError(f"{folder}: no CPU computes in {precision}; choose one of {', '.join(CPU_MODELS)}")
    if precision != "fp32" and CPU_MODELS[precision] not in files:
        command = f"edgedistill build {folder} --precision {precision}"
        raise UserError(f"{folder}: has no {precision} model ({CPU_MODELS[precision]}); make it: {command}")
    return precision


def gpu_precision(folder: Path, backend: str, precision: str) -> str:
    """Resolve "auto" to the lowest precision in which a backend of `ORT_GPU` runs this bundle.

    Raises:
        UserError: the bundle lacks the precision, or the backend does not compute in it.
    """
    if backend == "onnxruntime-cuda" and precision in ("int8", "fp8"):
        raise UserError(
            f"backend onnxruntime-cuda: computes {precision.upper()} models in float; give fp16,"
            " or onnxruntime-tensorrt"
        )
    files = read_manifest(folder).files
    possible = {
        name: file
        for name, file in TENSORRT_MODELS.items()
        if backend != "onnxruntime-cuda" or name not in ("int8", "fp8")
    }
    if precision == "auto":
        return next(name for name, file in possible.items() if file in files)
    if possible[precision] not in files:
        command = f"edgedistill build {folder} --precision {precision}"
        raise UserError(f"{folder}: has no {precision} model ({possible[precision]}); make it: {command}")
    return precision


def model_file(folder: Path, backend: str, precision: str = "auto") -> Path:
    """The file that `backend` would run: one of the bundle's ONNX files, or the engine that is tried first.

    Whether that engine fits this machine is known only once it is opened: the opened one is `engine.file`.

    Args:
        folder: folder of the bundle.
        backend: one of `BACKENDS`, but not "auto".
        precision: one of `PRECISIONS`.

    Raises:
        UserError: as `open_engine` does.
    """
    check_choice(backend, precision)
    if backend in CPU:
        return folder / CPU_MODELS[cpu_precision(folder, precision)]
    if backend in ORT_GPU:
        return folder / TENSORRT_MODELS[gpu_precision(folder, backend, precision)]
    engines = engine_files(folder, backend)
    lowest = next((one for one in TENSORRT_MODELS if one in engines), precision)
    wanted = lowest if precision == "auto" else precision
    if wanted not in engines:
        command = f"edgedistill build {folder} --backend {backend}"
        raise UserError(f"{folder}: has no engine for {backend} {precision}; build one: {command}")
    return engines[wanted]


def engine_files(folder: Path, backend: str) -> dict[str, Path]:
    """The engine of each precision that a TensorRT backend tries first, without those that failed their gate."""
    first_last = reversed(list_engines(folder, backend, refusals=[]))
    return {sidecar.precision: path for path, sidecar in first_last if sidecar.passed is not False}


def check_choice(backend: str, precision: str) -> None:
    """Raise `UserError` for a backend or a precision that does not exist."""
    if backend not in BACKENDS:
        raise UserError(f"unknown backend {backend!r}; choose one of {', '.join(BACKENDS)}")
    if precision not in PRECISIONS:
        raise UserError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
