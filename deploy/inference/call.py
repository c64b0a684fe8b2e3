"""What the models of all tasks share: timings of a call, and its images as a batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deploy.errors import UserError


@dataclass(frozen=True)
class Timings:
    """Wall-clock milliseconds of one call, over all its images; blending tiles counts as engine time."""

    preprocess_ms: float
    engine_ms: float
    postprocess_ms: float

    @property
    def total_ms(self) -> float:
        """The sum of the stages."""
        return self.preprocess_ms + self.engine_ms + self.postprocess_ms


def as_images(image: np.ndarray | Sequence[np.ndarray]) -> tuple[Sequence[np.ndarray], bool]:
    """Turn the argument of a call into a sequence of images.

    Args:
        image: one image H×W or H×W×C, a batch N×H×W×C, or a sequence of images of one shape.

    Returns:
        The images, at least one and all of one shape; and whether they were given as a batch.

    Raises:
        UserError: anything else was given, or the batch is empty.
    """
    if isinstance(image, np.ndarray):
        images, batched = (list(image), True) if image.ndim == 4 else ([image], False)
    elif isinstance(image, Sequence) and all(isinstance(one, np.ndarray) for one in image):
        images, batched = image, True
    else:
        raise UserError(
            f"expected an array or a list of arrays, got {type(image).__name__}; see deploy.files.images.read_image"
        )
    if len(images) == 0:
        raise UserError("the batch is empty; give at least one image")
    shapes = {one.shape for one in images}
    if len(shapes) > 1:
        listed = ", ".join("×".join(map(str, shape)) for shape in sorted(shapes))
        raise UserError(f"images of a batch must have one shape, found {listed}; predict them one by one")
    return images, batched


def stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Stack arrays along a new first axis; a single one is not copied."""
    return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)
