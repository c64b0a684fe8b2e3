"""What is left to the CPU where an engine computes only the core of a network (`deploy.quantize.core_form`)."""

import numpy as np

from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError
from deploy.scores.labels import labels_at

CORE = "core"
"""The option of an engine's sidecar that is there if it computes the core: the SHA-256 of the compiled ONNX."""
CORE_OUTPUTS = ("logits",)
"""Outputs of a core."""


def normalized(batch: np.ndarray, spec: InputSpec) -> np.ndarray:
    """Normalize a batch as the graph of the whole network does, operation by operation.

    Args:
        batch: as for `deploy.backends.engine.Engine.run`.
        spec: the bundle's input.

    Returns:
        float32 N×C×H×W.

    Raises:
        UserError: the batch is empty, or its dtype or shape is not the bundle's.
    """
    nhwc = spec.layout == "NHWC"
    size, channels = (spec.height, spec.width), len(spec.channels)
    shape = (*size, channels) if nhwc else (channels, *size)
    if batch.dtype != spec.dtype or batch.shape[1:] != shape or not batch.shape[0]:
        takes, got = ("×".join(map(str, one)) for one in (("N", *shape), batch.shape))
        raise UserError(f"the network takes {spec.dtype} {takes}, got {batch.dtype} {got}")
    mean, scale = np.array(spec.mean, np.float32), 1 / np.array(spec.std, np.float32)
    if not nhwc:
        mean, scale = mean[:, None, None], scale[:, None, None]
    image = batch.astype(np.float32)
    image -= mean
    image *= scale
    return np.ascontiguousarray(image.transpose(0, 3, 1, 2)) if nhwc else image


def completed(logits: np.ndarray, spec: InputSpec) -> dict[str, np.ndarray]:
    """The outputs of the whole network, with the labels that its logits decide.

    Args:
        logits: float32 N×K×h×w.
        spec: the bundle's input.
    """
    size = (spec.height, spec.width)
    return {"labels": np.stack([labels_at(scores, size) for scores in logits]), "logits": logits}
