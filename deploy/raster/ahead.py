"""Run an iterator in a thread that computes items ahead of their use."""

from collections.abc import Generator
from contextlib import closing
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class _End(NamedTuple):
    error: BaseException | None


def ahead(items: Generator[T, None, None], depth: int) -> Generator[T, None, None]:
    """Compute the items of a generator in a thread, ahead of their use.

    Closing the result stops the thread after its current item, and closes `items` in that thread.

    Args:
        items: the generator; an error that it raises is raised to the consumer at the same position.
        depth: how many computed items wait, at least 1.

    Yields:
        The same items.
    """
    ready: Queue[Any] = Queue(depth)
    stop = Event()
    thread = Thread(target=_fill, args=(items, ready, stop), name="ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        thread.join()


def _fill(items: Generator[T, None, None], ready: "Queue[Any]", stop: Event) -> None:
    try:
        with closing(items):
            for item in items:
                if not _put(ready, item, stop):
                    return
    except BaseException as error:  # passed to the thread that consumes the items
        _put(ready, _End(error), stop)
    else:
        _put(ready, _End(None), stop)


def _put(ready: "Queue[Any]", item: object, stop: Event) -> bool:
    """Put the item into the queue, and return whether that was possible before `stop`."""
    while not stop.is_set():
        try:
            ready.put(item, timeout=0.1)
        except Full:
            continue
        return True
    return False
