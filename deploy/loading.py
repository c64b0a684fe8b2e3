"""Open a bundle for inference: `load` gives the model of its task."""

from contextlib import suppress
from pathlib import Path

import msgspec

from deploy.backends.engine import CPU_MODELS, cpu_precision
from deploy.backends.open import open_engine
from deploy.bundle.bundle_files import read_manifest, verify_files
from deploy.bundle.manifest import GOLDEN, Manifest
from deploy.errors import UserError
from deploy.tasks.registry import model_of
from deploy.tasks.task import Model


def load(
    path: str | Path,
    backend: str = "auto",
    threads: int | None = None,
    verify: bool = True,
    precision: str = "auto",
    fallback: bool = False,
) -> Model:
    """Open the bundle in folder `path` for inference: a `Model`, or a `GraspModel` where its task is to find grasps.

    `backend` is "auto" (a TensorRT engine that fits this GPU, else the faster CPU backend, measured once and remembered
    beside the bundle), "onnxruntime", "openvino", "tensorrt" or "tensorrt-rtx"; `threads` the number of CPU threads of
    one call (None: the backend's choice). `precision` is "auto" (INT8 where the bundle has it, which means that it
    passed its gate, else fp32), "fp32", "fp16" or "int8". With `fallback` a TensorRT backend that was asked for and
    cannot run is replaced by the CPU, with a warning. What came of it all is in `model.engine.name`.
    `verify=False` skips the checksums of the files that it needs (not those of the manifest and of engines) for a
    faster start; `deploy.bundle.bundle_files.verify_files` checks all that the bundle has.
    Raises `UserError` naming the file and the remedy when the bundle is incomplete, changed, or of a newer schema, and
    where it or this machine has not what was asked for.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    if verify:
        verify_files(folder, _needed(folder, manifest, precision))
    engine = open_engine(folder, backend, threads, precision, fallback)
    return model_of(manifest, engine)


def _needed(folder: Path, manifest: Manifest, precision: str) -> Manifest:
    """The manifest of only what may be opened: the CPU's model, and the example that backends are compared on."""
    names = {GOLDEN}
    # without such a precision there may be an engine; where there is none either, `open_engine` says so
    with suppress(UserError, KeyError):
        names.add(CPU_MODELS[cpu_precision(folder, precision)])
    files = {name: entry for name, entry in manifest.files.items() if name in names}
    return msgspec.structs.replace(manifest, files=files)
