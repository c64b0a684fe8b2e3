"""ONNX Runtime on an NVIDIA GPU, by its CUDA or TensorRT execution provider: for machines whose Python lacks TensorRT's
bindings. Needs the package onnxruntime-gpu in place of onnxruntime.

ONNX Runtime runs on the CPU, with a line in its log, where a provider cannot be loaded; here that is an error. Not run
on this project's CI, which has no GPU: the tests check the calls against the real library's signatures and options, and
the real package refuses for real where its CUDA libraries are missing.
"""

import contextlib
import hashlib
import io
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.backends.engine import ORT_GPU, gpu_precision, model_file
from deploy.backends.gpu_options import GpuOptions
from deploy.backends.onnxruntime_cpu import OrtEngine, import_onnxruntime
from deploy.backends.tensorrt_gpu.cuda import probe, why_not
from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.network_check import check_network
from deploy.errors import UserError
from deploy.files.user_folders import cache_folder
from deploy.fresh_python import python_command

FATAL, WARNING = 4, 2
"""Severities of ONNX Runtime's log; the second is its default."""
LIBRARIES = {
    "onnxruntime-cuda": "libonnxruntime_providers_cuda.so",
    "onnxruntime-tensorrt": "libonnxruntime_providers_tensorrt.so",
}
"""What each provider is in; ONNX Runtime loads it when a session is made."""
OTHER_PACKAGE = "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu"
"""How the package for the CPU is replaced."""
_LOAD = """
import ctypes, onnxruntime
if hasattr(onnxruntime, "preload_dlls"):
    onnxruntime.preload_dlls()
for name in sys.argv[1:]:
    ctypes.CDLL(name, ctypes.RTLD_GLOBAL)
"""


def open_ort_gpu(
    folder: Path,
    backend: str,
    precision: str = "auto",
    threads: int | None = None,
    gpu: GpuOptions | None = None,
) -> OrtEngine:
    """Open the bundle's network on a GPU.

    Args:
        folder: the bundle.
        backend: one of `ORT_GPU`.
        precision: "auto" takes the lowest that the bundle has a model of and the provider computes in.
        threads: CPU threads of what the provider leaves to the CPU.
        gpu: only its device is used.

    Raises:
        UserError: the package, its CUDA libraries or the GPU are missing, the bundle lacks the precision, or another
            option than the device was given.
    """
    gpu = gpu or GpuOptions()
    if others := [name for name in gpu.given() if name not in ("device", "signed")]:
        raise UserError(f"{others[0]}: is for TensorRT, not for {backend}; leave it out")
    onnxruntime = import_onnxruntime()
    provider = ORT_GPU[backend]
    if provider not in onnxruntime.get_available_providers():
        raise UserError(
            f"backend {backend}: onnxruntime {onnxruntime.__version__} is made for the CPU: {OTHER_PACKAGE}"
        )
    precision = gpu_precision(folder, backend, precision)
    file = model_file(folder, backend, precision)
    check_network(file, read_manifest(folder))
    options = provider_options(backend, precision, file, gpu.device, onnxruntime.__version__)
    with _quiet(onnxruntime):
        try:
            engine = OrtEngine(file, threads, name=f"{backend} {precision}", providers=((provider, options),))
        except UserError as error:  # TensorRT's provider refuses, that of CUDA is left out in silence
            if why := missing_library(backend, onnxruntime):
                raise UserError(f"backend {backend}: cannot use the GPU: {why}") from error
            raise
    if provider not in engine.providers:
        why = missing_library(backend, onnxruntime) or why_not(gpu.device)
        why = why or "ONNX Runtime does not say why; update the GPU's driver"
        raise UserError(f"backend {backend}: cannot use the GPU: {why}")
    return engine


def provider_options(backend: str, precision: str, file: Path, device: int, version: str) -> dict[str, str]:
    """The provider's options. Precision is that of the model: TensorRT is allowed what the file asks for.

    What TensorRT compiles is kept in the user's cache, in a folder of this model, ONNX Runtime and GPU: ONNX Runtime
    itself names the files after the graph, and its documentation asks to delete them when a model changes.
    """
    if backend == "onnxruntime-cuda":
        return {"device_id": str(device)}
    gpu = probe(device)
    key = [hashlib.sha256(file.read_bytes()).hexdigest(), version, f"{gpu.name} {gpu.driver}" if gpu else ""]
    kept = cache_folder() / "onnxruntime-tensorrt" / hashlib.sha256(" ".join(key).encode()).hexdigest()[:16]
    try:
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{kept}: cannot be made ({error.strerror}); set EDGEDISTILL_CACHE") from error
    return {
        "device_id": str(device),
        "trt_fp16_enable": str(precision != "fp32"),
        "trt_int8_enable": str(precision == "int8"),
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(kept),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(kept),
    }


@contextmanager
def _quiet(onnxruntime: Any) -> Iterator[None]:
    """Load CUDA's libraries from packages, if there are any, without ONNX Runtime's lines about those that are missing:
    `missing_library` says more in one."""
    onnxruntime.set_default_logger_severity(FATAL)
    try:
        if hasattr(onnxruntime, "preload_dlls"):  # from 1.21 on
            with contextlib.redirect_stdout(io.StringIO()):
                onnxruntime.preload_dlls()
        yield
    finally:
        onnxruntime.set_default_logger_severity(WARNING)


def missing_library(backend: str, onnxruntime: Any) -> str:
    """What a provider's library lacks, and what to do; "" if it can be loaded."""
    folder = Path(onnxruntime.__file__).parent / "capi"
    # In a process of its own: loaded by hand, a provider would not find its host later.
    names = ("libonnxruntime_providers_shared.so", LIBRARIES[backend])
    done = subprocess.run(
        python_command(_LOAD, [str(folder / name) for name in names]),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode == 0:
        return ""
    told = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1].removeprefix(
        "OSError: "
    )
    if "nvinfer" in told or "nvonnxparser" in told:
        return (
            f"a library of TensorRT is missing or of another version ({told}); install the one that it names"
        )
    remedy = "pip install 'onnxruntime-gpu[cuda,cudnn]'"
    return f"a library of CUDA is missing or of another version ({told}); {remedy}"
