"""The engines that can run a bundle. Each is imported only when it is asked for."""

from pathlib import Path
from typing import Protocol

import numpy as np

from deploy.bundle import FP16, INT8, INT8_CPU, MODEL, read_manifest
from deploy.engines import list_engines
from deploy.errors import UserError

CPU = ("onnxruntime", "openvino")
"""Backends that run the bundle's ONNX files; the packages have the same names."""
TENSORRT = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Backends that run an engine which `deploy/build_engine.py` compiled, and the Python module of each."""
BACKENDS = ("auto", *CPU, *TENSORRT)

CPU_MODELS = {"int8": INT8_CPU, "fp16": FP16, "fp32": MODEL}
"""The ONNX of the bundle that a CPU runs in each precision, in the order in which "auto" takes them."""
TENSORRT_MODELS = CPU_MODELS | {"int8": INT8}
"""The one that TensorRT compiles."""
OUTPUTS = ("labels", "logits")
"""What every model gives: see `Engine.run`."""
PRECISIONS = ("auto", *CPU_MODELS)


class Engine(Protocol):
    """A compiled network. `run` may be called from several threads at once."""

    @property
    def name(self) -> str:
        """Backend and precision, such as "onnxruntime int8"; what to call it in reports."""
        ...

    @property
    def file(self) -> Path | None:
        """The file that it runs, an ONNX or an engine; None where it was given the bytes."""
        ...

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Run a batch, uint8 N×H×W×C or float32 N×C×H×W in raw image units, exactly as the bundle's input says.

        Returns "labels", uint8 N×H×W, and "logits", float32 N×K×h×w at the network's stride.
        """
        ...


def open_engine(
    folder: Path,
    backend: str = "auto",
    threads: int | None = None,
    precision: str = "auto",
    fallback: bool = False,
) -> Engine:
    """Open the bundle's network on `backend`, one of `BACKENDS`; "auto" takes the fastest (`deploy.backends.choice`).

    `threads` is the number of CPU threads of one call; None leaves it to the backend. `precision` "auto" is INT8 where
    the bundle has it, which means that it passed its gate, else fp32; of TensorRT engines the lowest there is.
    `fallback`: where a TensorRT backend cannot run, warn and take the fastest CPU backend.
    Raises `UserError` for an unknown choice, a precision that the bundle lacks, or a model that does not load.
    """
    _check(backend, precision)
    if threads is not None and threads < 1:
        raise UserError(f"threads is {threads}; give at least 1, or leave it out for the backend's choice")
    if backend == "auto":
        from deploy.backends.choice import open_best

        return open_best(folder, threads, precision)
    if backend in TENSORRT and fallback:
        from deploy.backends.choice import open_or_fall_back

        return open_or_fall_back(folder, backend, threads, precision)
    if backend in TENSORRT:
        from deploy.backends.trt import open_trt

        return open_trt(folder, backend, precision)
    return open_cpu(folder, backend, threads, precision)


def open_cpu(folder: Path, backend: str, threads: int | None, precision: str) -> Engine:
    """Open the bundle's network on one of the `CPU` backends. Raises as `open_engine` does."""
    precision = cpu_precision(folder, precision)
    file, name = folder / CPU_MODELS[precision], f"{backend} {precision}"
    if backend == "openvino":
        from deploy.backends.ov import OvEngine

        return OvEngine(file, threads, name=name)
    from deploy.backends.ort import OrtEngine

    return OrtEngine(file, threads, name=name)


def cpu_precision(folder: Path, precision: str) -> str:
    """What "auto" means for this bundle on a CPU; `UserError` for a precision that it lacks."""
    files = read_manifest(folder).files
    if precision == "auto":
        return "int8" if INT8_CPU in files else "fp32"
    if precision != "fp32" and CPU_MODELS[precision] not in files:
        command = f"python deploy/build_engine.py {folder} --precision {precision}"
        raise UserError(f"{folder}: has no {precision} model ({CPU_MODELS[precision]}); make it: {command}")
    return precision


def model_file(folder: Path, backend: str, precision: str = "auto") -> Path:
    """The file that there is for `backend`, which is not "auto": one of the bundle's ONNX files, or the newest engine.

    Whether that engine fits this machine is found out only by opening it: the opened one is `engine.file`. Raises
    `UserError` as `open_engine` does.
    """
    _check(backend, precision)
    if backend in CPU:
        return folder / CPU_MODELS[cpu_precision(folder, precision)]
    engines = engine_files(folder, backend)
    lowest = next((one for one in CPU_MODELS if one in engines), precision)
    wanted = lowest if precision == "auto" else precision
    if wanted not in engines:
        command = f"python deploy/build_engine.py {folder} --backend {backend}"
        raise UserError(f"{folder}: has no engine for {backend} {precision}; build one: {command}")
    return engines[wanted]


def engine_files(folder: Path, backend: str) -> dict[str, Path]:
    """The newest engine of each precision that the bundle has for a TensorRT backend, but none that failed its gate."""
    newest_last = reversed(list_engines(folder, backend, refusals=[]))
    return {sidecar.precision: path for path, sidecar in newest_last if sidecar.passed is not False}


def _check(backend: str, precision: str) -> None:
    if backend not in BACKENDS:
        raise UserError(f"unknown backend {backend!r}; choose one of {', '.join(BACKENDS)}")
    if precision not in PRECISIONS:
        raise UserError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
