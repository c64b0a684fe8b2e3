"""What an engine is, the backends and precisions by name, and the file of a bundle that each runs."""

from pathlib import Path
from typing import Protocol

import numpy as np

from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.engine_files import list_engines
from deploy.bundle.manifest import FP16, INT8, INT8_CPU, MODEL
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
    check_choice(backend, precision)
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


def check_choice(backend: str, precision: str) -> None:
    """Raise `UserError` for a backend or a precision that does not exist."""
    if backend not in BACKENDS:
        raise UserError(f"unknown backend {backend!r}; choose one of {', '.join(BACKENDS)}")
    if precision not in PRECISIONS:
        raise UserError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
