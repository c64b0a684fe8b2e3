"""The methods that the models of all tasks share: batches, streams, and asynchronous calls."""

from abc import abstractmethod
from collections.abc import AsyncGenerator, Generator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deploy.errors import UserError
from deploy.inference.call import Prepared
from deploy.stream.staged import R, Staged, require_count

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from deploy.stream.stream import Draw, Streamed, WhenFull

ASYNC_CALLS = 2
"""How many asynchronous calls run at once; others wait. The engine uses several cores anyway."""


class Calls(Staged[R]):
    """Ways to call a model, besides `model(image)`, which all give the same results."""

    @abstractmethod
    def __call__(self, image: np.ndarray | Sequence[np.ndarray] | str | Path) -> R:
        """Predict an image, an image file, or a batch of images of one size."""

    def file(self, path: str | Path) -> R:
        """Read an image file and predict it, as `edgedistill predict` does.

        Raises:
            UserError: it cannot be read or predicted; the message names it.
        """
        from deploy.inference.image_files import predict_file  # start-up time: decoders

        return predict_file(self, Path(path))[1]

    def batch(self, images: Sequence[np.ndarray], size: int = 8) -> list[R]:
        """Predict images of any sizes, several in one call of the engine.

        Labels equal those of single calls, except where scores tie within rounding: an engine may sum a batch in
        another order. On GPUs batches save time; on CPUs hardly. Tiled images run one by one.

        Args:
            images: each H×W×C (or H×W for one channel), as for a single call.
            size: the most images in one call of the engine, which needs memory for all of them.

        Returns:
            One result for each image, in their order.

        Raises:
            UserError: an image is invalid; the message has its position.
        """
        require_count("size", size, "images in one call of the engine")
        results: list[R] = []
        for first in range(0, len(images), size):
            numbered = enumerate(images[first : first + size], first)
            results += self.predict([self._prepare_numbered(index, image) for index, image in numbered])
        return results

    def stream(
        self, source: Any, *, queue: int = 2, when_full: "WhenFull | None" = None, draw: "Draw" = False
    ) -> "Generator[Streamed[R], None, None]":
        """Predict all images of a source, in order. Decoding, resizing, engine and drawing overlap, in threads.

        Close the generator to stop early (leaving a `for` loop does so once nothing refers to it): the threads stop and
        the device is released within a second, except that a network stream may finish a read of up to 5 s.

        Args:
            source: a video file, an image, a folder of images or a pattern such as `shots/*.png`; a URL (rtsp://,
                http://); the number of a camera; or an iterable of images H×W×C, which may be a generator. It runs
                ahead of the results, so each image must be an array of its own: one that is filled again and again
                would change under the network. Videos need OpenCV: `pip install 'edgedistill[video]'`.
            queue: how many decoded frames may wait; at most `queue` + 6 are in memory at a time.
            when_full: "wait": no frame is lost, and a slow caller slows down the source. "drop": the oldest waiting
                frame or result gives way, so that results are of the newest frames. None: "drop" for cameras and live
                streams, else "wait".
            draw: True draws each result into its frame (`draw`), a function of frame and result draws as it likes.

        Yields:
            `deploy.stream.stream.Streamed`: index, time stamp, frame, result, dropped frames, picture. A video that has
            fewer frames than its header says, or a live source that stops, ends with a `RuntimeWarning`.

        Raises:
            UserError: the source does not exist or cannot be opened, an image is invalid, or a thread failed; the
                message names source and frame, and comes after the results before it.
        """
        from deploy.stream.stream import Stream  # start-up time: for single images it is not needed

        return Stream(self, source, queue, when_full, draw).results()

    def stream_async(
        self, source: Any, *, queue: int = 2, when_full: "WhenFull | None" = None, draw: "Draw" = False
    ) -> "AsyncGenerator[Streamed[R], None]":
        """`stream` for `async for`: waiting for a result does not block the event loop, and may be canceled."""
        from deploy.stream.stream import Stream  # start-up time: for single images it is not needed

        return Stream(self, source, queue, when_full, draw).results_async()

    async def run_async(self, image: np.ndarray | Sequence[np.ndarray]) -> R:
        """`model(image)` in a thread, without blocking the event loop. At most `ASYNC_CALLS` run at once, others wait.

        A call that is canceled while it waits never runs; one that runs is finished, and its result discarded.
        """
        import asyncio  # start-up time: most programs are not asynchronous

        return await asyncio.get_running_loop().run_in_executor(_threads(), self, image)

    def _prepare_numbered(self, index: int, image: np.ndarray) -> Prepared:
        try:
            return self.prepare(image)
        except UserError as error:
            raise UserError(f"image {index}: {error}") from error


@cache
def _threads() -> "ThreadPoolExecutor":
    """The threads of asynchronous calls of all models."""
    import os
    from concurrent.futures import ThreadPoolExecutor  # start-up time: most programs are not asynchronous

    if hasattr(os, "register_at_fork"):  # threads do not survive a fork
        os.register_at_fork(after_in_child=_threads.cache_clear)
    return ThreadPoolExecutor(ASYNC_CALLS, "edgedistill-async")
