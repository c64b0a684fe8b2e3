"""The engine of a bundle that Triton's TensorRT backend can run."""

from pathlib import Path

from deploy.backends.core import CORE
from deploy.backends.gpu_options import DEFAULT
from deploy.backends.tensorrt_gpu.compatibility import check_trusted
from deploy.bundle.engine_files import Sidecar, list_engines, read_engine
from deploy.bundle.manifest import Manifest
from deploy.errors import UserError


def engine_for(bundle: Path, manifest: Manifest, precision: str, batch: int | None) -> tuple[bytes, int]:
    """Read the engine of TensorRT that takes the largest batches, of equals the newest.

    Args:
        bundle: the bundle.
        manifest: its manifest.
        precision: of the engine.
        batch: largest batch that Triton is to put together, 0 for none; None: what the engine takes.

    Returns:
        The checked engine, and the largest batch for Triton: 0, no batching, of an engine for single images.

    Raises:
        UserError: there is none that passed its gate and has the inputs and outputs of the bundle, it takes no such
            batch, or this user has neither built nor trusted it.
    """
    found = [
        one for one in list_engines(bundle, "tensorrt", precision, refusals=[]) if _serves(one[1], manifest)
    ]
    command = f"edgedistill build {bundle} --backend tensorrt --precision {precision}"
    if not found:
        raise UserError(
            f"{bundle}: has no {precision} engine of TensorRT that passed its gate, takes single images and computes"
            f" the whole network; build one on the server's GPU: {command}"
        )
    path, side = max(found, key=lambda one: one[1].batch[2])
    most = side.batch[2]
    if batch is not None and batch > most:
        raise UserError(
            f"--max-batch {batch}: {path.name} takes {most} at most; build another: {command} --batch 1,{batch},{batch}"
        )
    plan = read_engine(path, side)
    check_trusted(path, side, DEFAULT)
    largest = most if batch is None else batch
    return plan, largest if most > 1 else 0


def _serves(side: Sidecar, manifest: Manifest) -> bool:
    """Whether an engine is of the bundle's model, passed its gate, and takes what Triton sends: batches from 1 on."""
    source = manifest.files.get(side.source)
    current = source is not None and source.sha256 == side.source_sha256
    return current and side.passed is True and side.batch[0] == 1 and CORE not in side.options
