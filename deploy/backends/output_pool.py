"""Output arrays that engines write into directly, and write again once nobody else holds them."""

import sys
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

KEPT = 3
"""Sets of arrays that are kept for reuse: one that a caller looks at, one being written, one to spare."""


class Slot(NamedTuple):
    """One set of output arrays."""

    arrays: Mapping[str, np.ndarray]
    """By name of the output."""
    bound: Any
    """What the inference library made of the arrays, so that it need not be made again for every call."""
    idle: tuple[int, ...]
    """The reference count of each array while only the pool and the library hold it."""


class OutputPool:
    """Output arrays of fixed shapes, without a copy of results and without fresh memory for every call.

    Results belong to the caller, as if they were fresh: an array is written again only when the caller holds neither it
    nor a view of it, which its reference count tells. Any number of threads may use a pool.

    Args:
        shapes: shape and dtype of each output by name.
        bind: gives the arrays to the inference library; what it returns is kept as `Slot.bound`.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[tuple[int, ...], np.dtype]],
        bind: Callable[[Mapping[str, np.ndarray]], Any],
    ) -> None:
        self._shapes, self._bind = shapes, bind
        self._slots: deque[Slot] = deque()

    def take(self) -> Slot:
        """A slot whose arrays may be written; nobody else gets it until it is given back."""
        for _ in range(len(self._slots)):
            try:  # popleft and append are atomic
                slot = self._slots.popleft()
            except IndexError:  # other threads took the rest
                break
            if _references(slot.arrays) == slot.idle:
                return slot
            self._slots.append(slot)
        return self._new()

    def give_back(self, slot: Slot) -> dict[str, np.ndarray]:
        """Return the outputs, by name, to hand to the caller, and keep the slot for a later call."""
        outputs = dict(slot.arrays)
        if len(self._slots) < KEPT:  # else the arrays are the caller's alone
            self._slots.append(slot)
        return outputs

    def _new(self) -> Slot:
        arrays = {name: np.empty(shape, dtype) for name, (shape, dtype) in self._shapes.items()}
        return Slot(arrays, self._bind(arrays), _references(arrays))


def shapes_of(outputs: Mapping[str, np.ndarray]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and dtype of each output of a call, by name."""
    return {name: (array.shape, array.dtype) for name, array in outputs.items()}


def _references(arrays: Mapping[str, np.ndarray]) -> tuple[int, ...]:
    return tuple(map(sys.getrefcount, arrays.values()))
