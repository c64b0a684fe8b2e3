"""The boundary loss, and signed distances to the contours of labels."""

import cv2
import numpy as np
import torch
from torch import Tensor

from distill.losses.supervised.region import mean_over_classes, regions_of


def boundary(logits: Tensor, label: Tensor, valid: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Boundary loss: how far from the label's contour probability is misplaced, in pixels.

    Kervadec et al. (arXiv:1812.07032): Σ φ·(p - g) / pixels, φ the signed distance to the class's contour
    (`signed_distances`) and g its one-hot; mean over the classes of an image, then over images by valid pixels. The
    paper drops the constant Σ φ·g; with it, the loss is ≥ 0, and 0 for the label itself. As in the paper, add it to a
    loss of regions or pixels, with a small weight because its unit is pixels: `dice + 0.01*boundary`.

    The distances are computed on the CPU in every step, by two exact transforms per class and image.

    Args:
        logits: floating N×K×h×w; upsampled bilinearly to the label, as the deployed graph does.
        label: N×H×W int64, any value where not valid.
        valid: N×H×W bool, False for void, no data and padding.
        class_weights: floating, K positive weights of the classes in the mean.

    Returns:
        A scalar ≥ 0 in pixels, float32 or float64; 0, with zero gradient, if no pixel is valid or every image has only
        one class.
    """
    regions = regions_of(logits, label, valid)
    distance = signed_distances(label, valid, logits.shape[1]).flatten(2).to(regions.logits)
    misplaced = regions.probability - regions.truth.to(distance)
    pixels = regions.valid.sum(1, keepdim=True).clamp(min=1)
    return mean_over_classes((distance * misplaced).sum(2) / pixels, regions, class_weights)


@torch.compiler.disable()
def signed_distances(label: Tensor, valid: Tensor, num_classes: int) -> Tensor:
    """Euclidean distance of each pixel's center to the contour of each class, negative inside the class.

    A contour runs between pixels of the class and valid pixels of another, half a pixel from both. Neither the border
    of the image nor the edge of void is a contour.

    Args:
        label: int64 N×H×W, 0..num_classes-1, any value where not valid.
        valid: bool N×H×W.
        num_classes: K.

    Returns:
        float32 N×K×H×W in pixels, on the label's device; 0 where not valid, and for classes without a contour.
    """
    ids = torch.where(valid, label, -1).cpu().numpy()
    distances = np.zeros((len(ids), num_classes, *ids.shape[1:]), np.float32)
    for image, maps in zip(ids, distances, strict=True):
        classes = np.unique(image[image >= 0])
        for index in classes if len(classes) > 1 else ():
            maps[index] = _signed_distance(image == index, image >= 0)
    return torch.from_numpy(distances).to(label.device)


def _signed_distance(inside: np.ndarray, valid: np.ndarray) -> np.ndarray:
    to_class, to_others = (_distance_to(region) for region in (inside, valid & ~inside))
    return np.where(valid, np.where(inside, 0.5 - to_others, to_class - 0.5), 0)


def _distance_to(region: np.ndarray) -> np.ndarray:
    return cv2.distanceTransform((~region).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
