"""Lovász losses: convex surrogates of the Jaccard index (Berman et al., CVPR 2018, arXiv:1705.08790).

They are computed per image, over the classes that its valid labels contain, as `distill.losses.supervised.region` says.
"""

import torch
from torch import Tensor

from deploy.errors import UserError
from distill.losses.common import weighted_mean
from distill.losses.supervised.region import mean_over_classes, regions_of


def lovasz(
    logits: Tensor,
    label: Tensor,
    valid: Tensor,
    class_weights: Tensor | None = None,
    *,
    per_image: int = 1,
) -> Tensor:
    """Lovász-softmax: the Jaccard loss 1 - IoU of each class, extended to probabilities; mean over classes.

    Berman et al. (arXiv:1705.08790), with `classes="present"`. For hard predictions it is 1 - IoU. It sorts the pixels
    of each class: K·H·W numbers per image.

    Args:
        logits: floating N×K×h×w; upsampled bilinearly to the label, as the deployed graph does.
        label: N×H×W int64, any value where not valid.
        valid: N×H×W bool, False for void, no data and padding.
        class_weights: floating, K positive weights of the classes in the mean.
        per_image: 1 computes the loss of each image, 0 that of all images taken as one.

    Returns:
        A scalar from 0 to 1, float32 or float64; 0, with zero gradient, if no pixel is valid.
    """
    regions = regions_of(logits, label, valid, per_image)
    errors = (regions.truth.to(regions.logits) - regions.probability).abs()
    return mean_over_classes(extension(errors, regions.truth, regions.valid), regions, class_weights)


def lovasz_hinge(
    logits: Tensor,
    label: Tensor,
    valid: Tensor,
    class_weights: Tensor | None = None,
    *,
    per_image: int = 1,
) -> Tensor:
    """Lovász hinge for two classes: the Jaccard loss of class 1, extended to hinge errors of the logits' difference.

    Berman et al. (arXiv:1705.08790), §3.1. In an image without class 1, only the largest error of a pixel counts. The
    loss trains the margin, not probabilities.

    Args:
        logits: floating N×2×h×w; upsampled bilinearly to the label, as the deployed graph does.
        label: N×H×W int64, 0 or 1, any value where not valid.
        valid: N×H×W bool, False for void, no data and padding.
        class_weights: ignored, because only one class is compared.
        per_image: 1 computes the loss of each image, 0 that of all images taken as one.

    Returns:
        A scalar ≥ 0, float32 or float64; 0, with zero gradient, if no pixel is valid.

    Raises:
        UserError: the number of classes is not two.
    """
    if logits.shape[1] != 2:
        raise UserError(f"lovasz_hinge is for two classes, the logits have {logits.shape[1]}; use lovasz")
    regions = regions_of(logits, label, valid, per_image)
    truth = regions.truth[:, 1:]
    margin = regions.logits[:, 1:] - regions.logits[:, :1]
    errors = 1 - margin * torch.where(truth, 1.0, -1.0).to(margin)
    losses = extension(errors, truth, regions.valid).squeeze(1)
    return weighted_mean(losses, regions.valid.sum(1).to(losses))


def extension(errors: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Lovász extension of the Jaccard loss at the positive parts of `errors`.

    Args:
        errors: floating B×K×P.
        truth: bool B×K×P, which pixels are of the class.
        valid: bool B×P; other pixels have no influence.

    Returns:
        B×K of the type of `errors`, ≥ 0.
    """
    lowest = torch.finfo(errors.dtype).min  # sorted after all valid pixels
    errors, order = torch.where(valid.unsqueeze(1), errors, lowest).sort(dim=2, descending=True)
    return (errors.clamp(min=0) * jaccard_steps(truth.gather(2, order), errors.dtype)).sum(2)


def jaccard_steps(truth: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """By how much the Jaccard loss grows as pixels become wrong one after another.

    Computed in closed form: differences of successive values, as in the authors' code, lose their digits in float32.

    Args:
        truth: bool …×P, which pixels are of the class, in the order in which they become wrong.
        dtype: float32 or float64.

    Returns:
        …×P of that type, ≥ 0, with sum 1.
    """
    rank = torch.arange(1, truth.shape[-1] + 1, dtype=torch.int32, device=truth.device)
    seen = truth.cumsum(-1, dtype=torch.int32)
    right = (seen[..., -1:] - seen).to(dtype)
    union = (seen[..., -1:] + rank - seen).to(dtype)
    # a pixel of the class leaves the intersection, any other joins the union (empty at first where there is no class)
    return torch.where(truth | (union == 1), 1 / union, right / (union * (union - 1).clamp(min=1)))
