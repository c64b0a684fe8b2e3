"""Turn signals into requests to stop that a training honors within seconds, after it has saved its state."""

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from deploy.signals import Stopped, stopping_signals
from distill.training.log import say

T = TypeVar("T")


class StoppedSafely(Stopped):
    """A signal stopped what can be repeated: the state is that after the last step."""


class StopRequests:
    """The signals received so far. Where nothing can be lost, `at_once` lets them interrupt what is running.

    Args:
        interrupts: whether `at_once` does so; with several processes, all must stop at the same step.
    """

    def __init__(self, interrupts: bool = True) -> None:
        self.received: int | None = None
        self._interrupts, self._at_once = interrupts, False

    def handle(self, number: int, _frame: FrameType | None = None) -> None:
        """Note a signal, and acknowledge the first one.

        Raises:
            StoppedSafely: inside `at_once`.
            Stopped: it is the second signal, anywhere else.
        """
        again, self.received = self.received is not None, self.received or number
        if self._at_once:
            raise StoppedSafely(number)
        if again:
            raise Stopped(number)
        say(
            f"{signal.Signals(number).name}: stopping after this step; a second one stops at once, without saving"
        )

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within this context, a signal raises `StoppedSafely`; so does one that came before.

        Raises:
            StoppedSafely: a signal has been received.
        """
        if self._interrupts and self.received is not None:
            raise StoppedSafely(self.received)
        self._at_once = self._interrupts
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
def stop_requests(*, interrupts: bool = True) -> Iterator[StopRequests]:
    """Note SIGINT, SIGTERM and SIGHUP while the block runs.

    Outside the main thread, where Python cannot handle signals, there are no requests.

    Args:
        interrupts: as for `StopRequests`.
    """
    requests, previous = StopRequests(interrupts), dict[int, object]()
    try:
        for number in stopping_signals():
            previous[number] = signal.signal(number, requests.handle)
    except ValueError:
        previous.clear()
    try:
        yield requests
    finally:
        for number, old in previous.items():
            signal.signal(number, old)  # pyright: ignore[reportArgumentType]
