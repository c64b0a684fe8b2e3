"""Asking a loop to stop instead of killing it."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a request that the block polls for; a second one acts as before.

    Outside the main thread signals are somebody else's business, and no request ever comes.
    """
    received: list[int] = []
    previous: dict[int, object] = {}

    def handler(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, previous[number])  # pyright: ignore[reportArgumentType]

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, handler)
    except ValueError:
        previous.clear()
    try:
        yield lambda: bool(received)
    finally:
        for number, old in previous.items():
            signal.signal(number, old)  # pyright: ignore[reportArgumentType]
