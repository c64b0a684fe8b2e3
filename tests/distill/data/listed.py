"""Samples in memory."""

from collections.abc import Sequence
from typing import Any


class Listed:
    """Samples in a list, as a reader."""

    def __init__(self, samples: Sequence[Any]) -> None:
        self.samples = samples
        self.ids = [sample.id for sample in samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]
