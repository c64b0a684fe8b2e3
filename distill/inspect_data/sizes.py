"""What labels keep of themselves at several sizes of the network."""

from collections.abc import Sequence

import numpy as np

from deploy.inference.preprocess import resize_nearest
from distill.data.proportions import Shape, spread
from distill.data.sample import IGNORE
from distill.data.splits import Reader

MOST_MASKS = 60


def kept_iou(reader: Reader, classes: int, sizes: Sequence[Shape]) -> list[float]:
    """IoU of the worst class of labels that are resized to each size and back, with themselves; 1 without labels.

    Args:
        reader: samples of segmentation, of which at most `MOST_MASKS` are read, spread evenly.
        classes: their number.
        sizes: height and width of the network.
    """
    counts = np.zeros((len(sizes), 2, classes), np.int64)
    for index in spread(len(reader), MOST_MASKS):
        label = reader[index].label.numpy().astype(np.uint8)
        for size, (both, either) in zip(sizes, counts, strict=True):
            back = resize_nearest(resize_nearest(label, *size), *label.shape)
            valid = (label != IGNORE) & (back != IGNORE)
            here, there = label[valid], back[valid]
            same = np.bincount(here[here == there], minlength=classes)
            both += same
            either += np.bincount(here, minlength=classes) + np.bincount(there, minlength=classes) - same
    return [_worst(both, either) for both, either in counts]


def _worst(both: np.ndarray, either: np.ndarray) -> float:
    found = either > 0
    return float((both[found] / either[found]).min()) if found.any() else 1.0
