"""What the models of all tasks share: images as a batch, preparing and running them, and timings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter

import numpy as np

from deploy.backends.engine import Engine
from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError
from deploy.inference.preprocess import prepare, require_array


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
    images, batched = (image, True) if isinstance(image, Sequence) else ([image], False)
    for one in images:
        require_array(one)
    if isinstance(image, np.ndarray) and image.ndim == 4:
        images, batched = list(image), True
    if len(images) == 0:
        raise UserError("the batch is empty; give at least one image")
    shapes = {one.shape for one in images}
    if len(shapes) > 1:
        listed = ", ".join("×".join(map(str, shape)) for shape in sorted(shapes))
        raise UserError(f"images of a batch must have one shape, found {listed}; use model.batch(images)")
    return images, batched


def stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Stack arrays along a new first axis; a single one is not copied."""
    return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)


class Stopwatch:
    """The stages of one call, timed one after another.

    Args:
        preprocess_ms: duration of the first stage, which has been timed already.
    """

    def __init__(self, preprocess_ms: float) -> None:
        self._preprocess_ms = preprocess_ms
        self._marks = [perf_counter()]

    def lap(self) -> None:
        """The engine has finished: begin the postprocessing."""
        self._marks.append(perf_counter())

    def timings(self) -> Timings:
        """The three stages; the third ends now."""
        self.lap()
        return Timings(self._preprocess_ms, *(1000 * (end - begin) for begin, end in pairwise(self._marks)))


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image, ready for the engine."""

    image: np.ndarray
    """As it was given."""
    pixels: np.ndarray
    """Input of the network without the batch axis; of an image that will be tiled H×W×C at its own size."""
    valid: np.ndarray
    """bool H×W at the size of the image: pixels that carry data."""
    ms: float
    """Duration of the preparation."""


def prepared(
    image: np.ndarray,
    spec: InputSpec,
    ready: Callable[[np.ndarray, InputSpec], tuple[np.ndarray, np.ndarray]] = prepare,
) -> Prepared:
    """Prepare an image H×W×C in raw units by `ready`, which is `prepare` or, for tiles, `check_pixels`.

    Raises:
        UserError: the image is invalid (see `deploy.inference.preprocess.check_pixels`).
    """
    begin = perf_counter()
    pixels, valid = ready(image, spec)
    return Prepared(image, pixels, valid, 1000 * (perf_counter() - begin))


def run_prepared(images: Sequence[Prepared], engine: Engine) -> tuple[dict[str, np.ndarray], Stopwatch]:
    """Run prepared images in one call of the engine.

    Returns:
        The outputs of the engine, and a stopwatch that times the postprocessing.
    """
    watch = Stopwatch(sum(one.ms for one in images))
    outputs = engine.run(stack([one.pixels for one in images]))
    watch.lap()
    return outputs, watch
