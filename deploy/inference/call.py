"""What the models of all tasks share: images as a batch, resizing them to the network and running it, and timings."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter

import numpy as np

from deploy.backends.engine import Engine
from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError
from deploy.inference.preprocess import prepare


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
        UserError: anything else was given, the batch is empty, or its images differ in shape.
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


class Stopwatch:
    """The stages of one call, timed one after another."""

    def __init__(self) -> None:
        self._marks = [perf_counter()]

    def lap(self) -> None:
        """End a stage and begin the next."""
        self._marks.append(perf_counter())

    def timings(self) -> Timings:
        """The three stages; the third ends now."""
        self.lap()
        return Timings(*(1000 * (end - begin) for begin, end in pairwise(self._marks)))


def run_resized(
    images: Sequence[np.ndarray], spec: InputSpec, engine: Engine
) -> tuple[dict[str, np.ndarray], tuple[np.ndarray, ...], Stopwatch]:
    """Resize images to the network and run it.

    Args:
        images: H×W×C in raw units, of one size.
        spec: input of the network.
        engine: runs it.

    Returns:
        The outputs of the engine; for each image which of its pixels carry data, bool H×W; and a stopwatch that times
        the postprocessing.

    Raises:
        UserError: an image is invalid (see `deploy.inference.preprocess.check_pixels`).
    """
    watch = Stopwatch()
    inputs, valids = zip(*(prepare(one, spec) for one in images), strict=True)
    watch.lap()
    outputs = engine.run(stack(inputs))
    watch.lap()
    return outputs, valids, watch
