"""Run-length encoding of masks as in COCO (cocodataset.org, "Data format"): column by column, zeros first."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from deploy.bundle.manifest import ClassInfo


def encode(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of a bool mask H×W, read down the columns, starting with the zeros (0 if there are none)."""
    flat = mask.ravel(order="F")
    steps = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], steps, [flat.size]]))
    return [*([0] if flat.size and flat[0] else []), *lengths.tolist()]


def decode(counts: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """The bool mask H×W of `encode`."""
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(size, order="F")


def annotations(labels: np.ndarray, classes: Sequence[ClassInfo]) -> list[dict[str, Any]]:
    """One annotation of COCO's form for each class in a label map uint8 H×W; `bbox` is x, y, width, height."""
    found = []
    for index, info in enumerate(classes):
        mask = labels == index
        if not mask.any():
            continue
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        left, top = int(columns[0]), int(rows[0])
        found.append(
            {
                "category_id": index,
                "category_name": info.name,
                "iscrowd": 1,
                "area": int(mask.sum()),
                "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
                "segmentation": {"size": list(labels.shape), "counts": encode(mask)},
            }
        )
    return found
