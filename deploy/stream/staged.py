"""A model in stages, which may run in different threads."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np

from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError
from deploy.inference.call import Prepared

R = TypeVar("R")
"""The result of a task."""


def require_count(name: str, value: object, what: str) -> None:
    """Raise `UserError` if an argument that counts something is no whole number from 1 on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{name} is {value!r}; give a whole number from 1 on, the number of {what}")


class Staged(Generic[R]):
    """What a task supplies; `model(image)` is `predict([prepare(image)])[0]`."""

    input: InputSpec

    @abstractmethod
    def prepare(self, image: np.ndarray) -> Prepared:
        """Check an image H×W×C (or H×W) and bring it to the network's size.

        Raises:
            UserError: the image is invalid (see `deploy.inference.preprocess.check_pixels`).
        """

    @abstractmethod
    def predict(self, images: Sequence[Prepared]) -> list[R]:
        """One result for each prepared image, by one call of the engine; their timings are those of the whole call."""

    @abstractmethod
    def draw(self, image: np.ndarray, result: R) -> np.ndarray:
        """Draw the result of an image into it: RGB uint8 H×W×3; grasps are drawn into a small image enlarged."""
