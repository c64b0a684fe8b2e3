"""Statistics of grasp images as the network receives them."""

from collections.abc import Sequence

import torch

from deploy.tasks.grasp.geometry import GOOD
from distill.data.grasp.splits import CLASSES, GraspReader
from distill.data.grasp.view import GraspView
from distill.data.sample import Sample
from distill.data.stats import Stats, compute_stats


def grasp_stats(reader: GraspReader, size: tuple[int, int], channels: Sequence[str]) -> Stats:
    """Channel means and deviations at network scale (depth is centered), and pixels without and with a good grasp.

    Raises:
        UserError: no image has a valid pixel.
    """
    view = GraspView(
        reader, size=size, channels=channels, augment=None, mean=(0.0,) * len(channels), cache=False
    )
    return compute_stats(_Labeled(view), len(CLASSES))


class _Labeled:
    """A view with class ids as labels: 1 where a good grasp is drawn."""

    def __init__(self, view: GraspView) -> None:
        self.view = view

    @property
    def ids(self) -> Sequence[str]:
        return self.view.reader.ids

    def __len__(self) -> int:
        return len(self.view)

    def __getitem__(self, index: int) -> Sample:
        sample = self.view[0, index]
        return Sample(sample.image, (sample.label[0] >= GOOD).to(torch.int64), sample.valid, sample.id)
