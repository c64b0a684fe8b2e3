"""A bounded queue between two threads: when it is full, putting waits, or drops the oldest item."""

from collections import deque
from collections.abc import Iterator
from threading import Condition
from typing import Generic, TypeVar

T = TypeVar("T")


class Channel(Generic[T]):
    """A queue of at most `size` items, with an end that either side may declare.

    Unlike `queue.Queue` it can be closed, which wakes both sides at once.

    Args:
        size: the most items that wait, at least 1.
        drop: when it is full, drop the oldest item instead of waiting.
    """

    def __init__(self, size: int, drop: bool = False) -> None:
        assert size >= 1
        self._size, self._drop = size, drop
        self._items: deque[T] = deque()
        self._changed = Condition()
        self._ended = False
        self._reason: BaseException | None = None

    def put(self, item: T) -> bool:
        """Add an item; False, without adding it, if the channel has ended or ends while this waits for room."""
        with self._changed:
            while not (self._ended or self._drop or len(self._items) < self._size):
                self._changed.wait()
            if self._ended:
                return False
            if len(self._items) == self._size:
                self._items.popleft()
            self._items.append(item)
            self._changed.notify_all()
            return True

    def end(self, reason: BaseException | None = None) -> None:
        """Declare that no more items come. Those that wait are still delivered, then `reason` is raised, if any."""
        with self._changed:
            if not self._ended:
                self._ended, self._reason = True, reason
                self._changed.notify_all()

    def close(self) -> None:
        """Declare that no more items are wanted: those that wait are discarded, and both sides find the end."""
        with self._changed:
            self._ended, self._reason = True, None
            self._items.clear()
            self._changed.notify_all()

    @property
    def ended(self) -> bool:
        """Whether either side has declared the end."""
        return self._ended

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        """Take items until the end, and wait for them."""
        while True:
            with self._changed:
                while not (self._items or self._ended):
                    self._changed.wait()
                if not self._items:
                    break
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
            del item  # a large image must not live until the next one arrives
        if self._reason is not None:
            raise self._reason
