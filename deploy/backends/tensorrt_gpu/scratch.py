"""Compile a network and open it at once, without a file: to look inside, not to keep."""

import hashlib
import threading
from pathlib import Path

from deploy.backends.gpu_options import GpuOptions
from deploy.backends.tensorrt_gpu.builder import check_machine
from deploy.backends.tensorrt_gpu.compile import compile_network
from deploy.backends.tensorrt_gpu.log import listen
from deploy.backends.tensorrt_gpu.options import BuildOptions
from deploy.backends.tensorrt_gpu.progress import Progress
from deploy.backends.tensorrt_gpu.trt_engine import TrtEngine
from deploy.bundle.engine_files import Sidecar
from deploy.errors import UserError


def compile_and_open(model: bytes, source: Path, options: BuildOptions, gpu: GpuOptions) -> TrtEngine:
    """An engine of these bytes on this machine's GPU.

    Args:
        model: an ONNX file with a single input and the outputs `labels` and `logits`, and possibly more.
        source: its name in errors.
        options: how to build.
        gpu: how to open it.

    Raises:
        UserError: there is no GPU, or TensorRT refuses the network.
    """
    trt, targets, cuda = check_machine(options)
    if cuda is None:
        raise UserError(f"{source}: the engine is for another machine, so it cannot be run here")
    with listen(trt, lambda message: True) as messages, cuda.current():
        bar, stop = Progress(), threading.Event()
        compiled = compile_network(trt, model, source, options, targets, messages, bar, stop)
    plan = bytes(compiled.plan)
    sidecar = Sidecar(
        source=source.name,
        source_sha256=hashlib.sha256(model).hexdigest(),
        sha256=hashlib.sha256(plan).hexdigest(),
        bytes=len(plan),
        backend=options.backend,
        version=trt.__version__,
        precision=options.precision,
        gpu=cuda.device.name,
        compute_capability=cuda.device.compute_capability,
        batch=options.batch,
        options=options.deciding(),
        key="",
        build_seconds=compiled.seconds,
    )
    return TrtEngine(source, plan, sidecar, cuda, trt, gpu)
