"""Open what `edgedistill build` has made."""

from pathlib import Path

from deploy.backends.gpu_options import GpuOptions
from deploy.bundle.bundle_files import read_manifest
from deploy.loading import load
from deploy.tasks.registry import model_of
from deploy.tasks.task import Model


def open_built(bundle: Path, backend: str, precision: str, engine: Path | None, gpu: GpuOptions) -> Model:
    """Open the bundle on a backend, with exactly this `engine` if one is given."""
    if engine is None:
        return load(bundle, backend, precision=precision)
    # start-up time: only builds for TensorRT need it
    from deploy.backends.tensorrt_gpu.engine import open_trt

    manifest = read_manifest(bundle)
    return model_of(manifest, open_trt(bundle, backend, precision, engine=engine, options=gpu))
