"""The engines that can run a bundle. Each is imported only when it is asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from deploy.bundle import MODEL
from deploy.errors import UserError


class Engine(Protocol):
    """A compiled network. `run` may be called from several threads at once."""

    @property
    def name(self) -> str:
        """What to call it in reports."""
        ...

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Run a batch, uint8 N×H×W×C or float32 N×C×H×W in raw image units, exactly as the bundle's input says.

        Returns "labels", uint8 N×H×W, and "logits", float32 N×K×h×w at the network's stride.
        """
        ...


def open_engine(folder: Path, backend: str = "auto", threads: int | None = None) -> Engine:
    """Open the bundle's network on `backend`; "auto" takes the best that this installation has.

    `threads` is the number of CPU threads of one call; None leaves it to the backend.
    Raises `UserError` for an unknown backend or a model that it cannot load.
    """
    if backend not in BACKENDS:
        raise UserError(f"unknown backend {backend!r}; choose one of {', '.join(BACKENDS)}")
    if threads is not None and threads < 1:
        raise UserError(f"threads is {threads}; give at least 1, or leave it out for the backend's choice")
    return BACKENDS[backend](folder, threads)


def _onnxruntime(folder: Path, threads: int | None) -> Engine:
    from deploy.backends.ort import OrtEngine

    return OrtEngine(folder / MODEL, threads)


BACKENDS: dict[str, Callable[[Path, int | None], Engine]] = {
    "auto": _onnxruntime,
    "onnxruntime": _onnxruntime,
}
