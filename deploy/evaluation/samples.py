"""Samples that are read one at a time, and their number."""

from collections.abc import Iterable, Iterator

from deploy.evaluation.receipt import Sample


class Samples(Iterator[Sample]):
    """An iterator that knows how many samples there are, so that what goes over them can tell how long the rest takes.

    Args:
        samples: the samples; nothing is read before they are asked for.
        count: their number.
    """

    def __init__(self, samples: Iterable[Sample], count: int) -> None:
        self._samples, self._count = iter(samples), count

    def __next__(self) -> Sample:
        return next(self._samples)

    def __len__(self) -> int:
        """The number of all samples, those that were read included."""
        return self._count
