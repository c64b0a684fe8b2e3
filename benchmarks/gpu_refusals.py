"""Broken or foreign TensorRT engines, which `benchmarks/gpu.py` expects `open_trt` to refuse."""

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.gpu_engine import Row
from deploy.backends.gpu_options import GpuOptions
from deploy.backends.tensorrt_gpu.engine import open_trt
from deploy.bundle.engine_files import write_engine
from deploy.bundle.manifest import MANIFEST
from deploy.errors import UserError

SPOILED: dict[str, dict[str, Any]] = {
    "another version's engine": {"version": "0.0.0"},
    "another GPU's engine": {"gpu": "another", "compute_capability": "1.0", "targets": (), "options": {}},
    "another model's engine": {"source_sha256": "0" * 64},
}
"""Changes to a sidecar after which the engine must be refused."""


def refusals(row: Row, options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Spoil an engine in several ways, in a scratch folder with a copy of the manifest, and try to open it.

    Args:
        row: an engine that was built and measured.
        options: the script's options; `bundle`, `device` and `provider` are used.

    Yields:
        The name of a case and the error message; the message is empty if the engine was opened, which is a failure.
    """
    engine, sidecar = Path(row.file).read_bytes(), row.sidecar
    with tempfile.TemporaryDirectory() as scratch:
        bundle = Path(scratch)
        shutil.copy(options.bundle / MANIFEST, bundle)

        def attempt(trust: bool = True) -> str:
            gpu = GpuOptions(device=options.device, trust_engines=trust)
            try:
                open_trt(
                    bundle, sidecar.backend, sidecar.precision, provider=options.provider, options=gpu
                ).close()
            except UserError as error:
                return str(error)
            return ""

        for case, changes in SPOILED.items():
            write_engine(bundle, "spoiled", engine, msgspec.structs.replace(sidecar, **changes))
            yield case, attempt()
        path = write_engine(bundle, "spoiled", engine, sidecar)
        path.write_bytes(engine[:-1] + bytes([engine[-1] ^ 1]))
        yield "an engine with one bit changed", attempt()
        path.with_suffix(".json").unlink()
        yield "an engine without its sidecar", attempt()
        write_engine(bundle, "spoiled", b"rubbish" * 1000, sidecar)
        yield "an engine that nobody has built or trusted here", attempt(trust=False)
        yield "rubbish with a fitting sidecar", attempt()
