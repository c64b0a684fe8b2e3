"""Results of a source, in order, while its next frames are decoded and run in other threads."""

from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal

import numpy as np

from deploy.errors import UserError, warn
from deploy.inference.call import Prepared
from deploy.stream.capture import Frame
from deploy.stream.pipeline import Pipeline
from deploy.stream.sources import source_of
from deploy.stream.staged import R, Staged, require_count

Draw = bool | Callable[[np.ndarray, Any], np.ndarray]
"""Whether to draw, or what draws: a function of the frame H×W×C and its result."""
WhenFull = Literal["wait", "drop"]


@dataclass(frozen=True, eq=False)
class Streamed(Generic[R]):
    """A frame of a source, and its result."""

    index: int
    """Position of the frame in the source, from 0; with "drop" some are missing."""
    seconds: float
    """Time stamp: position in a video; else when the frame arrived, since the source was opened."""
    where: str
    """Source and position in words, such as "clip.mp4, frame 12" or the path of an image."""
    frame: np.ndarray
    """The image H×W×C; of videos and cameras RGB, uint8."""
    result: R
    """What `model(frame)` returns."""
    dropped: int
    """How many frames of the source have been left out so far."""
    picture: np.ndarray | None
    """The drawn result, RGB uint8 H×W×3; None without `draw`."""


class Stream(Generic[R]):
    """A source on its way through a model. Arguments are those of `deploy.stream.calls.Calls.stream`."""

    def __init__(
        self, model: Staged[R], source: Any, queue: int, when_full: WhenFull | None, draw: Draw
    ) -> None:
        require_count("queue", queue, "frames that may wait")
        if when_full not in ("wait", "drop", None):
            raise UserError(f"when_full is {when_full!r}; choose 'wait' or 'drop'")
        self._model, self._source = model, source_of(source, model.input)
        self._draw = model.draw if draw is True else draw or None
        self._delivered = 0
        drop = self._source.live if when_full is None else when_full == "drop"
        self.pipeline = Pipeline(self._source.frames, [self._prepare, self._predict], queue, drop)

    def results(self) -> Generator[Streamed[R], None, None]:
        """All results; closing the generator stops the threads."""
        try:
            self.pipeline.start()
            while (item := self._next()) is not None:
                yield item
                del item  # a large image must not live until the next result is there
        finally:
            self.pipeline.stop()
            if not self.pipeline.join():
                warn(f"{self._source.name}: is still being read; its thread ends with the frame")

    async def results_async(self) -> AsyncGenerator[Streamed[R], None]:
        """All results, without blocking the event loop; closing the generator, or cancellation, stops the threads."""
        # start-up time: most programs are not asynchronous
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        loop = asyncio.get_running_loop()
        waiting = ThreadPoolExecutor(1, "edgedistill-stream-async")
        try:
            self.pipeline.start()
            while (item := await loop.run_in_executor(waiting, self._next)) is not None:
                yield item
                del item
        finally:
            self.pipeline.stop()  # also ends a call of `_next` whose caller was canceled
            waiting.shutdown(wait=False)
            await asyncio.to_thread(self.pipeline.join)
            await asyncio.to_thread(waiting.shutdown)  # its thread, too, has ended when the generator has

    def _next(self) -> Streamed[R] | None:
        try:
            found = self.pipeline.take()
        except RuntimeWarning as end:
            warn(str(end))
            return None
        if found is None:
            return None
        frame, result = found
        picture = _named(frame, self._draw, frame.image, result) if self._draw else None
        dropped = frame.index - self._delivered
        self._delivered += 1
        return Streamed(frame.index, frame.seconds, frame.where, frame.image, result, dropped, picture)

    def _prepare(self, frame: Frame) -> tuple[Frame, Prepared]:
        ready = _named(frame, self._model.prepare, frame.image)
        return frame, ready if frame.known is None else replace(ready, valid=ready.valid & frame.known)

    def _predict(self, item: tuple[Frame, Prepared]) -> tuple[Frame, R]:
        frame, ready = item
        [result] = _named(frame, self._model.predict, [ready])
        return frame, result


def _named(frame: Frame, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function; an error names the frame.

    Raises:
        UserError: the function raised an error.
    """
    try:
        return function(*arguments)
    except UserError as error:
        raise UserError(f"{frame.where}: {error}") from error
    except Exception as error:  # of an inference library, or of the caller's own function
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(f"{frame.where}: {type(error).__name__}: {reason}") from error
