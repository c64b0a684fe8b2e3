"""Train with a loss of your own against the labels.

    python examples/add_a_loss.py [FOLDER]      # needs edgedistill[train]

A loss is a plain function with a name in the table of its task. `loss.task` can then name it, with its options checked,
like those that `edgedistill losses` lists. Distillation losses have a table of their own, `DISTILLATION_LOSSES`.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import edgedistill
from distill.losses.common import at_size_of, weighted_mean
from distill.losses.registry import SEGMENTATION_LOSSES, Loss


def gce(
    logits: Tensor, label: Tensor, valid: Tensor, class_weights: Tensor | None = None, *, q: float = 0.7
) -> Tensor:
    """Generalized cross-entropy, robust to wrong labels: (1 - p^q) / q (Zhang & Sabuncu, arXiv:1805.07836).

    Args:
        logits: floating N×K×h×w; upsampled to the label.
        label: N×H×W int64, any value where not valid.
        valid: N×H×W bool.
        class_weights: floating, K positive weights; None: all classes count alike.
        q: above 0; towards 0 it becomes cross-entropy.

    Returns:
        A scalar, the mean over valid pixels; 0, with zero gradient, if no pixel is valid.
    """
    target = torch.where(valid, label, 0)
    p = at_size_of(label, logits).softmax(1).gather(1, target[:, None])[:, 0]
    loss = (1 - p.clamp(min=torch.finfo(p.dtype).tiny) ** q) / q
    weight = valid.to(p) if class_weights is None else valid * class_weights.to(p)[target]
    return weighted_mean(loss, weight)


def main(folder: str | Path = "runs/gce", **changes: Any) -> Path:
    """Train two steps with the loss in `folder`, and return the report."""
    SEGMENTATION_LOSSES["gce"] = Loss(gce, on="logits")
    config = edgedistill.preset("smoke", out=folder, **{"loss.task": "ce + 0.5*gce(q=0.5)"}, **changes)
    return edgedistill.run(config)


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
