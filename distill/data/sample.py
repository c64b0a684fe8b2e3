"""The sample type of segmentation: an image, its labels, and two masks: pixels that count, and labels that are known.

`valid` says where an image has something to learn from. In an image with labels these are the pixels with data that
nobody has marked as void: a void pixel shows what is no class, so what a teacher sees there is wrong by construction,
and it counts neither for the labels nor for a teacher. In an image without labels they are all pixels with data; there
`unlabeled` leaves them out of everything that compares with labels, and the teacher alone decides.
"""

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
    """One image with what is known of its labels.

    `label == 255` exactly where it is not known: where `valid` is False (void labels, no data), and where `unlabeled`.
    """

    image: "Tensor"
    """float32 C×H×W in raw units: 0..255 for uint8 images, dB for SAR; NaN where there is no data."""
    label: "Tensor"
    """int64 H×W, 0..K-1, or 255."""
    valid: "Tensor"
    """bool H×W: pixels that count, with a label or without."""
    id: str
    unlabeled: "Tensor | None" = None
    """bool H×W: the valid pixels whose label is not known; None = there are none."""

    @property
    def labeled(self) -> "Tensor":
        """bool H×W: the valid pixels whose label is known."""
        return self.valid if self.unlabeled is None else self.valid & ~self.unlabeled


@dataclass(frozen=True)
class Batch:
    """Samples of the same size, stacked."""

    image: "Tensor"
    """float32 N×C×H×W in raw units, without NaN."""
    label: "Tensor"
    """int64 N×H×W, 0..K-1, or 255; for grasps float32 N×4×H×W, the target maps; for regression float32 N×H×W."""
    valid: "Tensor"
    """bool N×H×W: pixels that count in batch norms and distillation."""
    ids: tuple[str, ...]
    keys: tuple[tuple[int, int], ...] = ()
    """Epoch and index of each sample, if it comes from a `View`."""
    unlabeled: "Tensor | None" = None
    """bool N×H×W: the valid pixels whose label is not known; None = there are none."""

    @property
    def labeled(self) -> "Tensor":
        """bool N×H×W: pixels that count in the task loss, the valid ones whose label is known."""
        return self.valid if self.unlabeled is None else self.valid & ~self.unlabeled

    def to(self, device: "torch.device | str", non_blocking: bool = False) -> "Batch":
        """The same batch on another device."""
        tensors = {name: getattr(self, name) for name in ("image", "label", "valid", "unlabeled")}
        moved = {
            name: tensor.to(device, non_blocking=non_blocking)
            for name, tensor in tensors.items()
            if tensor is not None
        }
        return replace(self, **moved)


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
    import torch

    pixels, has_data = _pixels(image)
    clean = np.where(has_data, label, IGNORE).astype(np.int64, copy=False)
    return Sample(
        image=torch.from_numpy(pixels),
        label=torch.from_numpy(clean),
        valid=torch.from_numpy(clean != IGNORE),
        id=id,
    )


def unlabeled_sample(image: np.ndarray, id: str) -> Sample:
    """A sample without labels: every pixel with data is valid.

    Args:
        image: H×W×C in raw units, as for `make_sample`.
        id: name of the sample.
    """
    import torch

    pixels, has_data = _pixels(image)
    valid = torch.from_numpy(has_data)
    return Sample(torch.from_numpy(pixels), torch.full(valid.shape, IGNORE), valid, id, unlabeled=valid)


def without_labels(sample: Sample) -> Sample:
    """The same image as if nobody had labeled it; void pixels count, as they do in such images."""
    return unlabeled_sample(sample.image.permute(1, 2, 0).numpy(), sample.id)


def _pixels(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Float32 C×H×W with NaN in place of infinite values, and bool H×W where all channels have data."""
    pixels = image.transpose(2, 0, 1).astype(np.float32, order="C")
    if not np.issubdtype(image.dtype, np.floating):
        return pixels, np.ones(image.shape[:2], bool)
    finite = np.isfinite(pixels)
    pixels[~finite] = np.nan
    return pixels, np.asarray(finite.all(axis=0))


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
        unlabeled=_unlabeled(samples),
    )


def _unlabeled(samples: Sequence[Sample]) -> "Tensor | None":
    """Stack the masks of labels that are not known; None where all are."""
    import torch

    if all(sample.unlabeled is None for sample in samples):
        return None
    known = torch.zeros_like(samples[0].valid)
    return torch.stack([known if sample.unlabeled is None else sample.unlabeled for sample in samples])


def _size(sample: Sample) -> str:
    return "×".join(str(n) for n in sample.image.shape)
