"""Open a bundle's network on one of the CPU backends."""

from pathlib import Path

from deploy.backends.engine import CPU_MODELS, Engine, cpu_precision
from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.backends.openvino_cpu import OvEngine


def open_cpu(folder: Path, backend: str, threads: int | None, precision: str) -> Engine:
    """Open the bundle's network on one of the `CPU` backends. Arguments and errors are those of `open_engine`."""
    precision = cpu_precision(folder, precision)
    file, name = folder / CPU_MODELS[precision], f"{backend} {precision}"
    if backend == "openvino":
        return OvEngine(file, threads, name=name)
    return OrtEngine(file, threads, name=name)
