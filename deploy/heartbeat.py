"""Lines that tell, while something long goes on without any of its own, that it does."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

SECONDS = 10.0
"""Longest silence."""


@contextmanager
def working(
    what: str | Callable[[], str], say: Callable[[str], object] | None = None, every: float = SECONDS
) -> Iterator[None]:
    """Print `what … 20 s` every ten seconds until the block ends.

    Args:
        what: what goes on, such as "exporting the student"; a function is called for each line.
        say: prints a line; default: to stderr.
        every: seconds between lines.
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
    while not done.wait(every):
        text = what if isinstance(what, str) else what()
        tell(f"{text} … {time.monotonic() - began:.0f} s")
