"""Tiny bundles with several precisions, whose outputs tell which file was opened, and fake engines."""

import time
from pathlib import Path

import numpy as np

from deploy.bundle.bundle_files import extend_bundle, read_manifest
from deploy.bundle.engine_files import Sidecar, write_engine
from deploy.bundle.manifest import FP16, INT8_CPU
from tests.deploy.tiny import WEIGHTS, make_bundle, make_model

FILES = {"fp16": FP16, "int8": INT8_CPU}
RED = np.full((32, 48, 3), (255, 0, 0), np.uint8)
ANSWERS = {"fp32": 0, "int8": 1, "fp16": 2}
"""The class that the model of each precision gives a red image."""


def make_precisions(folder: Path, *precisions: str) -> Path:
    """A bundle with precisions besides fp32, whose models label red differently: see ANSWERS."""
    make_bundle(folder)
    spec = read_manifest(folder).input
    models = {
        FILES[one]: make_model(spec, np.roll(WEIGHTS["rgb"], ANSWERS[one], axis=0)) for one in precisions
    }
    extend_bundle(folder, models, {FILES[one]: one for one in precisions})
    return folder


def add_engine(
    folder: Path,
    backend: str = "tensorrt",
    precision: str = "fp32",
    name: str = "",
    content: bytes = b"an engine",
) -> Path:
    """Add a file that looks like an engine of the bundle but cannot be opened."""
    sidecar = Sidecar(
        source="model.onnx",
        source_sha256=read_manifest(folder).files["model.onnx"].sha256,
        sha256="",
        bytes=0,
        backend=backend,
        version="11.4.0",
        precision=precision,
        gpu="Orin",
        compute_capability="8.7",
        batch=(1, 1, 1),
        key="key",
        build_seconds=1.0,
    )
    return write_engine(folder, name or f"{backend}-{precision}", content, sidecar)


class FakeEngine:
    """Returns one label everywhere, after `wait` seconds."""

    def __init__(
        self, name: str = "fake fp32", label: int = 0, wait: float = 0.0, file: Path | None = None
    ) -> None:
        self.name, self.file, self._label, self._wait = name, file, label, wait
        self.runs = 0
        self.closed = False

    def close(self) -> None:
        self.closed = True

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        self.runs += 1
        time.sleep(self._wait)
        return {
            "labels": np.full((len(batch), 32, 48), self._label, np.uint8),
            "logits": np.zeros((len(batch), 3, 4, 6), np.float32),
        }
