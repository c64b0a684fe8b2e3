"""Turn signals into requests to stop, so that a loop can save its state first."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a request that the block polls; a second one has its usual effect.

    Outside the main thread, where Python cannot handle signals, there are no requests.

    Yields:
        A function that returns whether a stop has been requested.
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
