"""Stages that run in threads, one after another, from a source to the caller: in order, and with bounded queues."""

import atexit
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from threading import Thread
from time import monotonic
from typing import Any

from deploy.stream.channel import Channel

PATIENCE = 1.0
"""Seconds that `Pipeline.join` waits for the threads."""
NAME = "edgedistill-stream"
"""How the names of the threads begin."""


class Pipeline:
    """Items of a generator, passed through stages, each in a thread of its own.

    Items keep their order. An error of the source or a stage reaches the caller after the results before it. Whoever
    ends, stops those before and after it.

    Args:
        items: creates the generator; it is created, run and closed in one thread. It may yield None where it waits.
        stages: functions from what the one before returned.
        size: how many items wait between source and first stage; one between the others.
        drop: where a queue is full, drop its oldest item instead of waiting.
    """

    def __init__(
        self,
        items: Callable[[], Generator[Any, None, None]],
        stages: Sequence[Callable[[Any], Any]],
        size: int,
        drop: bool,
    ) -> None:
        self.channels = [Channel[Any](size, drop), *(Channel[Any](1, drop) for _ in stages)]
        self._output = iter(self.channels[-1])
        work = [lambda: _read(items, self.channels[0])]
        for number, stage in enumerate(stages):
            work.append(_stage(stage, self.channels[number], self.channels[number + 1]))
        self._threads = [
            Thread(target=one, name=f"{NAME}-{number}", daemon=True) for number, one in enumerate(work)
        ]

    def start(self) -> None:
        """Start the threads; a program that ends without `stop` and `join` stops them, too."""
        # Threads that the interpreter kills inside an inference library would abort the process.
        atexit.register(self._end)
        for thread in self._threads:
            thread.start()

    def take(self) -> Any:
        """The next result, or None at the end. Raises the error of a stage after the results before it."""
        return next(self._output, None)

    def stop(self) -> None:
        """Make all threads stop after their current item; returns at once, and ends a `take` of another thread."""
        for channel in self.channels:
            channel.close()

    def join(self) -> bool:
        """Wait for the threads, at most for `PATIENCE`, and return whether all of them have ended."""
        end = monotonic() + PATIENCE
        for thread in self._threads:
            if thread.ident is not None:  # it was started
                thread.join(max(0.0, end - monotonic()))
        atexit.unregister(self._end)
        return not any(thread.is_alive() for thread in self._threads)

    def _end(self) -> None:
        self.stop()
        self.join()


def _read(items: Callable[[], Generator[Any, None, None]], outbox: Channel[Any]) -> None:
    """Move the items of a generator into a channel; None is no item, but a chance to stop while it waits."""
    reason = None
    try:
        with closing(items()) as source:
            for item in source:
                if outbox.ended if item is None else not outbox.put(item):
                    break
                del item  # a large image must not live until the next one has been read
    except BaseException as error:  # passed to the caller
        reason = error
    outbox.end(reason)


def _stage(function: Callable[[Any], Any], inbox: Channel[Any], outbox: Channel[Any]) -> Callable[[], None]:
    def work() -> None:
        reason = None
        try:
            for item in inbox:
                if not outbox.put(function(item)):
                    break
                del item
        except BaseException as error:  # passed to the caller
            reason = error
        inbox.close()
        outbox.end(reason)

    return work
