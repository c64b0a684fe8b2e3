"""Lines that tell, while something long goes on without any of its own, that it does."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

SECONDS = 10.0
"""Longest silence."""
_last = [time.monotonic()]
"""When the last line was printed, as far as `told` was called for it."""


def told() -> None:
    """Note that a line has been printed: silence begins anew."""
    _last[0] = time.monotonic()


@contextmanager
def working(
    what: str | Callable[[], str], say: Callable[[str], object] | None = None, every: float = SECONDS
) -> Iterator[None]:
    """Print `what … 20 s` whenever nothing has been printed for ten seconds, until the block ends.

    Args:
        what: what goes on, such as "exporting the student"; a function is called for each line.
        say: prints a line; default: to stderr.
        every: longest silence in seconds.
    """
    done, tell = Event(), say or (lambda line: print(line, file=sys.stderr, flush=True))
    thread = Thread(target=_tell, args=(what, tell, every, done), name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _tell(what: str | Callable[[], str], tell: Callable[[str], object], every: float, done: Event) -> None:
    began = time.monotonic()
    while not done.wait(every / 20):
        now = time.monotonic()
        if now - _last[0] > 0.95 * every:
            text = what if isinstance(what, str) else what()
            tell(f"{text} … {now - began:.0f} s")
            told()
