"""How many pixels each class has in a label map."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from deploy.bundle.manifest import ClassInfo


def class_counts(labels: np.ndarray, classes: Sequence[ClassInfo]) -> list[dict[str, Any]]:
    """`id`, `name`, `pixels`, and `share` of the pixels with data (0 if there are none) of each class, for JSON.

    Args:
        labels: class ids uint8 of any shape; other ids carry no data.
        classes: meaning of the ids.
    """
    counts = np.bincount(labels.ravel(), minlength=len(classes))[: len(classes)]
    known = max(1, int(counts.sum()))
    return [
        {"id": index, "name": info.name, "pixels": int(count), "share": float(count / known)}
        for index, (info, count) in enumerate(zip(classes, counts, strict=True))
    ]
