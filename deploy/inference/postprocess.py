"""From the network's outputs back to the image: labels and probabilities at its own size."""

import numpy as np

from deploy.inference.preprocess import resize_nearest
from deploy.scores.upsampling import softmax, upsample


def restore_labels(labels: np.ndarray, valid: np.ndarray, ignore_label: int) -> np.ndarray:
    """Resize label ids uint8 h×w to the size of `valid` H×W, by the nearest pixel; `ignore_label` where not valid."""
    labels = resize_nearest(labels, *valid.shape)
    return labels if valid.all() else np.where(valid, labels, np.uint8(ignore_label))


def probabilities(
    logits: np.ndarray, network_size: tuple[int, int], image_size: tuple[int, int]
) -> np.ndarray:
    """Class probabilities of an image from the network's scores.

    Scores are resized bilinearly to the network's size and from there to the image's, then a softmax runs over the
    classes of each pixel. At class boundaries the arg-max may differ by a pixel from the labels, which were computed at
    the network's size.

    Args:
        logits: scores float32 K×h×w.
        network_size: (height, width) of the network's input.
        image_size: (height, width) of the image.

    Returns:
        Float32 K×H×W at the image's size.
    """
    return softmax(upsample(upsample(logits, network_size), image_size))
