"""The sample type of segmentation: an image, its labels, and a mask of valid pixels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deploy.errors import UserError

if TYPE_CHECKING:  # labeled folders are read on devices, too, which have no torch
    import torch
    from torch import Tensor

IGNORE = 255
"""Label of every invalid pixel: void, without data, or padding."""
MAX_CLASSES = IGNORE
"""Labels are uint8 in bundles, caches and on devices, and 255 is none of them."""


@dataclass(frozen=True)
class Sample:
    """One labeled image.

    `label == 255` exactly where `valid` is False: at void labels and where the image has no data.
    """

    image: "Tensor"
    """float32 C×H×W in raw units: 0..255 for uint8 images, dB for SAR; NaN where there is no data."""
    label: "Tensor"
    """int64 H×W, 0..K-1, or 255."""
    valid: "Tensor"
    """bool H×W."""
    id: str


@dataclass(frozen=True)
class Batch:
    """Samples of the same size, stacked."""

    image: "Tensor"
    """float32 N×C×H×W in raw units, without NaN."""
    label: "Tensor"
    """int64 N×H×W, 0..K-1, or 255; for grasps float32 N×4×H×W, the target maps; for regression float32 N×H×W."""
    valid: "Tensor"
    """bool N×H×W."""
    ids: tuple[str, ...]
    keys: tuple[tuple[int, int], ...] = ()
    """Epoch and index of each sample, if it comes from a `View`."""

    def to(self, device: "torch.device | str", non_blocking: bool = False) -> "Batch":
        """The same batch on another device."""
        image, label, valid = (
            tensor.to(device, non_blocking=non_blocking) for tensor in (self.image, self.label, self.valid)
        )
        return replace(self, image=image, label=label, valid=valid)


def make_sample(
    image: np.ndarray, label: np.ndarray, *, id: str, num_classes: int, source: str | Path | None = None
) -> Sample:
    """Check an image and its labels, and combine them into a sample.

    An image without a single valid pixel is allowed.

    Args:
        image: H×W×C in raw units. Infinite values (the dB of zero power) become NaN; a pixel with NaN in any channel
            has no data.
        label: integer H×W, 255 at void pixels.
        id: name of the sample.
        num_classes: number of classes.
        source: what error messages name; default: the id.

    Raises:
        UserError: the sizes differ, labels are not integers, or a label is neither in 0..num_classes-1 nor 255.
    """
    name = str(source or id)
    if label.shape != image.shape[:2]:
        (height, width), expected = label.shape[:2], image.shape[:2]
        raise UserError(
            f"{name}: the label is {height}×{width} pixels but the image of {id} is {expected[0]}×{expected[1]}"
        )
    _check_ids(label, num_classes, name)
    pixels = image.transpose(2, 0, 1).astype(np.float32, order="C")
    has_data = np.ones(label.shape, bool)
    if np.issubdtype(image.dtype, np.floating):
        finite = np.isfinite(pixels)
        pixels[~finite] = np.nan
        has_data = finite.all(axis=0)
    import torch

    clean = np.where(has_data, label, IGNORE).astype(np.int64, copy=False)
    return Sample(
        image=torch.from_numpy(pixels),
        label=torch.from_numpy(clean),
        valid=torch.from_numpy(clean != IGNORE),
        id=id,
    )


def _check_ids(label: np.ndarray, num_classes: int, name: str) -> None:
    if not np.issubdtype(label.dtype, np.integer):
        raise UserError(f"{name}: labels must be integers, found {label.dtype}")
    wrong = (label != IGNORE) & ((label < 0) | (label >= num_classes))
    if wrong.any():
        ids = np.unique(label[wrong]).tolist()
        found = ", ".join(str(i) for i in ids[:5]) + (", …" if len(ids) > 5 else "")
        allowed = f"0..{num_classes - 1}, {IGNORE} = void"
        raise UserError(f"{name}: label id {found} is out of range for {num_classes} classes ({allowed})")


def stack(samples: Sequence[Sample]) -> Batch:
    """Stack samples into one batch.

    Raises:
        UserError: two images differ in size; the message names both.
    """
    import torch

    first = samples[0]
    for sample in samples:
        if sample.image.shape != first.image.shape:
            raise UserError(
                f"cannot batch {first.id} ({_size(first)}) with {sample.id} ({_size(sample)}): "
                "use --data.resize stretch, or crop"
            )
    return Batch(
        image=torch.stack([sample.image for sample in samples]),
        label=torch.stack([sample.label for sample in samples]),
        valid=torch.stack([sample.valid for sample in samples]),
        ids=tuple(sample.id for sample in samples),
    )


def _size(sample: Sample) -> str:
    return "×".join(str(n) for n in sample.image.shape)
