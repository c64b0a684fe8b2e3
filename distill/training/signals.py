"""Turn signals into requests to stop that a training honors within seconds, after it has saved its state."""

import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from deploy.signals import Stopped, handling
from distill.training.log import say

T = TypeVar("T")

SAME = 2.0
"""Seconds within which a repeated signal is the same request: a scheduler signals every process, a launcher its own."""


class StoppedSafely(Stopped):
    """A signal stopped what can be repeated: the state is that after the last step."""


class StopRequests:
    """The signals received so far. Where nothing can be lost, `at_once` lets them interrupt what is running."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._at_once, self._first = False, 0.0

    @property
    def pending(self) -> StoppedSafely | None:
        """The request, if there has been one: what to raise as soon as all processes know."""
        return None if self.received is None else StoppedSafely(self.received)

    def handle(self, number: int, _frame: FrameType | None = None) -> None:
        """Note a signal, and acknowledge the first one.

        Raises:
            StoppedSafely: inside `at_once`.
            Stopped: it is a second signal, anywhere else.
        """
        again, self.received = self.received is not None, self.received or number
        if self._at_once:
            raise StoppedSafely(number)
        if again:
            if time.monotonic() - self._first < SAME:
                return
            raise Stopped(number)
        self._first = time.monotonic()
        say(
            f"{signal.Signals(number).name}: stopping after this step; a second one stops at once, without saving"
        )

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within this context, a signal raises `StoppedSafely`; so does one that came before.

        Raises:
            StoppedSafely: a signal has been received.
        """
        if self.received is not None:
            raise StoppedSafely(self.received)
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def interruptible(self, items: Iterable[T]) -> Iterator[T]:
        """The items, each waited for inside `at_once`."""
        source = iter(items)
        while True:
            with self.at_once():
                try:
                    item = next(source)
                except StopIteration:
                    return
            yield item


@contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Note SIGINT, SIGTERM and SIGHUP while the block runs.

    Outside the main thread, where Python cannot handle signals, there are no requests.
    """
    requests = StopRequests()
    with handling(requests.handle):
        _noting.append(requests)
        try:
            yield requests
        finally:
            _noting.remove(requests)


def pending_request() -> StoppedSafely | None:
    """The request that the innermost `stop_requests` has noted, if any."""
    return _noting[-1].pending if _noting else None


_noting: list[StopRequests] = []
