"""Scenes with gaps for `benchmarks/no_data.py`, in blobs or in strips."""

from collections.abc import Sequence

import cv2
import numpy as np

from distill.data.sample import Sample, make_sample
from distill.data.seeding import generator
from distill.data.splits import Reader

MOST = 0.95
"""Largest share of a scene that may be missing."""


class GappedReader:
    """The complete scenes of a reader with gaps added, as a pure function of (seed, id).

    Gaps are smooth blobs in one half of the scenes and a strip at a random angle in the other.
    """

    def __init__(self, reader: Reader, share: float, seed: int, uneven: bool = False) -> None:
        """Keep the scenes without gaps.

        Args:
            reader: scenes; those with invalid pixels are left out.
            share: share of the pixels to remove, 0..`MOST`.
            seed: seed of the gaps.
            uneven: remove `MOST` of some scenes and nothing of the others, as in tiles of a mosaic, so that `share` is
                missing on average; otherwise remove `share` of each scene.
        """
        self.share, self.seed, self.uneven = share, seed, uneven
        samples = (reader[index] for index in range(len(reader)))
        self._samples = [sample for sample in samples if sample.valid.all()]
        self.ids: Sequence[str] = [sample.id for sample in self._samples]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        sample = self._samples[index]
        rng = generator("holes", self.seed, sample.id)
        share = MOST * (rng.random() < self.share / MOST) if self.uneven else self.share
        if not share:
            return sample
        shape = sample.label.shape[0], sample.label.shape[1]
        field = blobs(rng, shape) if index % 2 else strip(rng, shape)
        image = sample.image.numpy().transpose(1, 2, 0).copy()
        image[field < np.quantile(field, share)] = np.nan
        return make_sample(image, sample.label.numpy(), id=sample.id, num_classes=2)


def blobs(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A smooth random field H×W whose lowest values form blobs."""
    noise = rng.standard_normal(shape).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), sigmaX=max(shape) / 12)


def strip(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """The distance H×W from a random line through the image."""
    angle = rng.uniform(0, np.pi)
    row, column = (rng.uniform(0, side) for side in shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.abs((x - column) * np.cos(angle) + (y - row) * np.sin(angle))
