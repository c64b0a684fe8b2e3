"""Run an edgedistill bundle on a device: `deploy.load(folder)` returns a model, `model(image)` its prediction.

Needs numpy, Pillow, ONNX Runtime and msgspec; never torch or onnx. Importing this package loads none of them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploy.tasks.task import Model

__all__ = ["load"]


def load(
    path: str | Path,
    backend: str = "auto",
    threads: int | None = None,
    verify: bool = True,
    precision: str = "auto",
    fallback: bool = False,
    trusted_keys: Sequence[str | Path | bytes] | None = None,
    *,
    device: int = 0,
    max_contexts: int | None = None,
    cuda_graph: bool = False,
    trust_engines: bool = False,
    allow_host_code: bool = False,
    logits: bool = True,
) -> "Model":
    """Open the bundle in folder `path` for inference; see `deploy.loading.load`."""
    from deploy import loading  # start-up time: numpy and ONNX Runtime load with the first bundle

    return loading.load(
        path,
        backend,
        threads,
        verify,
        precision,
        fallback,
        trusted_keys,
        device=device,
        max_contexts=max_contexts,
        cuda_graph=cuda_graph,
        trust_engines=trust_engines,
        allow_host_code=allow_host_code,
        logits=logits,
    )
