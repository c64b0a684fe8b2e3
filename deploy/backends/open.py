"""Open a bundle's network on the requested backend."""

from pathlib import Path

from deploy.backends.auto import open_best, open_or_fall_back
from deploy.backends.cpu import open_cpu
from deploy.backends.engine import ORT_GPU, TENSORRT, Engine, check_choice, cpu_precision
from deploy.backends.gpu_options import DEFAULT, GpuOptions
from deploy.backends.setting import Setting
from deploy.errors import UserError


def open_engine(
    folder: Path,
    backend: str = "auto",
    threads: int | None = None,
    precision: str = "auto",
    fallback: bool = False,
    gpu: GpuOptions = DEFAULT,
) -> Engine:
    """Open the bundle's network on a backend.

    Args:
        folder: folder of the bundle.
        backend: one of `BACKENDS`; "auto" chooses the fastest (`deploy.backends.auto`).
        threads: number of CPU threads of one call; None leaves it to the backend.
        precision: one of `PRECISIONS`. "auto" with the backend "auto" is the fastest on this CPU of those that passed
            their gate. With another backend nothing is measured: it is INT8 where the bundle has it, which means that
            it passed its gate, else fp32; on a GPU the lowest precision that has an engine or, with ONNX Runtime, a
            model that it computes in.
        fallback: where the backend of a GPU cannot run, warn and use the fastest CPU backend.
        gpu: how an engine of TensorRT is opened.

    Raises:
        UserError: the choice is unknown, the bundle lacks the precision, or the model does not load; or the backend is
            one of the CPU, and options of a GPU were given.
    """
    check_choice(backend, precision)
    if threads is not None and threads < 1:
        raise UserError(f"threads is {threads}; give at least 1, or leave it out for the backend's choice")
    if backend == "auto":
        return open_best(folder, threads, precision, gpu)
    if (backend in TENSORRT or backend in ORT_GPU) and fallback:
        return open_or_fall_back(folder, backend, threads, precision, gpu)
    if backend in ORT_GPU:
        from deploy.backends.onnxruntime_gpu import open_ort_gpu  # start-up time: most devices have no GPU

        return open_ort_gpu(folder, backend, precision, threads, gpu)
    if backend in TENSORRT:
        from deploy.backends.tensorrt_gpu.engine import open_trt  # start-up time: most devices have no GPU

        return open_trt(folder, backend, precision, options=gpu)
    if given := gpu.given():
        raise UserError(f"{given[0]}: is for TensorRT, not for {backend}; leave it out")
    return open_cpu(folder, Setting(backend, cpu_precision(folder, precision), threads))
