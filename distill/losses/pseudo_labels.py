"""Pixels without labels: the class that the teacher sees there, and how much they count."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill.losses.common import at_size_of
from distill.losses.supervised.class_weights import class_weights_of


class PseudoLabels(nn.Module):
    """The teacher's most likely class of each pixel, and a weight by how sure it is and how frequent that class is.

    A threshold on the confidence is usual where predictions stand in for labels (FixMatch, Sohn et al.,
    arXiv:2001.07685; for segmentation UniMatch, Yang et al., arXiv:2208.09910), and so is a balance of classes
    (class-balanced self-training, Zou et al., arXiv:1810.07911).

    Args:
        min_confidence: probability of the most likely class from which a pixel counts; 0 = every pixel does.
        class_weights: K factors > 0; None = all classes weigh alike.
    """

    class_weights: Tensor | None

    def __init__(self, min_confidence: float = 0.0, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.min_confidence = min_confidence
        self.register_buffer("class_weights", class_weights, persistent=False)

    @torch.no_grad()
    def forward(self, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Labels and weights for the pixels of a batch.

        Args:
            logits: of the teacher, floating N×K×h×w; upsampled bilinearly to `label`.
            label: N×H×W; only its size is used.

        Returns:
            int64 N×H×W in 0..K-1, and float32 or float64 N×H×W ≥ 0.
        """
        confidence, seen = F.softmax(at_size_of(label, logits), dim=1).max(dim=1)
        weight = (confidence >= self.min_confidence).to(confidence)
        return seen, weight if self.class_weights is None else weight * self.class_weights[seen]


def pseudo_label_weights(kind: str, class_pixels: Sequence[int]) -> Tensor | None:
    """Class weights as those of the task loss, but with a mean of 1 over the labeled training pixels.

    So they shift weight between classes, and leave that of images without labels against others about the same.

    Args:
        kind: `none`, `log`, `inverse` or `effective`, as in `LossConfig.class_weights`.
        class_pixels: number of labeled training pixels of each class.

    Returns:
        float32 of length K; None if all classes weigh alike.
    """
    weights = class_weights_of(kind, (), class_pixels)
    if weights is None or not sum(class_pixels):
        return weights
    frequency = torch.tensor(class_pixels, dtype=torch.float64) / sum(class_pixels)
    return (weights / (weights * frequency).sum()).float()
