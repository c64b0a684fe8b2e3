"""A stage of a pipeline: an iterator whose items are computed in a thread, ahead of their use."""

from collections.abc import Generator
from contextlib import closing
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class _End(NamedTuple):
    error: BaseException | None


def ahead(items: Generator[T, None, None], depth: int) -> Generator[T, None, None]:
    """The same items, of which up to `depth` (at least 1) wait ready; errors of `items` are raised in their place.

    Closing it stops the thread, after the item that it is at, and closes `items` in that thread.
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
    except BaseException as error:  # whatever it is belongs to the thread that waits for the items
        _put(ready, _End(error), stop)
    else:
        _put(ready, _End(None), stop)


def _put(ready: "Queue[Any]", item: object, stop: Event) -> bool:
    """Whether the item found its place before `stop`."""
    while not stop.is_set():
        try:
            ready.put(item, timeout=0.1)
        except Full:
            continue
        return True
    return False
