"""Progress of what takes long: a line in place on a terminal, elsewhere a line whenever ten seconds were silent.

    with working("calibrating"):
        for image in counted(images, len(images)):
            …

tells `calibrating … 12 of 70, 20 s, about 97 s left`.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from typing import TypeVar

from deploy.terminal import can_show_status, clear_status, show_status
from deploy.text import duration
from deploy.verbosity import is_quiet, is_verbose, note

SECONDS = 10.0
"""Longest silence."""
ON_TERMINAL = 0.5
"""Between two updates of the line on a terminal."""
SHORT = 2.0
"""Seconds after which a terminal shows that something goes on."""
BAR = 20
"""Width of the bar on a terminal."""
_last = [time.monotonic()]
"""When the last line was printed, as far as `told` was called for it."""

Item = TypeVar("Item")


@dataclass(eq=False)
class _Count:
    """How far a loop has come."""

    total: int
    began: float
    done: int = 0


_counts: list[_Count] = []
"""Of the loops that are running, the outermost first; that one is told of."""


def told() -> None:
    """Note that a line has been printed: silence begins anew."""
    _last[0] = time.monotonic()


def counted(items: Iterable[Item], total: int | None = None) -> Iterator[Item]:
    """The items; whatever `working` block is open tells how many there were, and how long the rest takes.

    Args:
        items: what a loop goes over.
        total: their number; default: their length, where they have one.
    """
    known = len(items) if isinstance(items, Sized) else 0
    count = _Count(known if total is None else total, time.monotonic())
    _counts.append(count)
    try:
        for item in items:
            yield item
            count.done += 1
    finally:
        if count in _counts:
            _counts.remove(count)


@contextmanager
def working(
    what: str | Callable[[], str], say: Callable[[str], object] | None = None, every: float = SECONDS
) -> Iterator[None]:
    """Tell that something goes on until the block ends: see the module.

    Args:
        what: what goes on, such as "exporting the student"; a function is called for each line.
        say: prints a line; default: to stderr.
        every: longest silence in seconds.
    """
    if is_quiet():
        yield
        return
    began, done, tell = time.monotonic(), Event(), say or note
    loop = _show if can_show_status() and every == SECONDS else _tell
    thread = Thread(target=loop, args=(what, tell, every, done), name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if is_verbose():
            tell(f"{_text(what)}: {time.monotonic() - began:.1f} s")


def _tell(what: str | Callable[[], str], tell: Callable[[str], object], every: float, done: Event) -> None:
    """Print lines."""
    began = time.monotonic()
    while not done.wait(every / 20):
        now = time.monotonic()
        if now - _last[0] > 0.95 * every:
            tell(f"{_text(what)} … {_position()}{now - began:.0f} s{_left(now)}")
            told()


def _show(what: str | Callable[[], str], _: Callable[[str], object], every: float, done: Event) -> None:
    """Show a line on a terminal, which anything that is printed replaces."""
    began = time.monotonic()
    while not done.wait(ON_TERMINAL):
        now = time.monotonic()
        if now - began > SHORT:
            show_status(f"{_text(what)} … {_bar()}{_position()}{now - began:.0f} s{_left(now)}")
    clear_status()


def _text(what: str | Callable[[], str]) -> str:
    return what if isinstance(what, str) else what()


def _count() -> _Count | None:
    """The outermost loop, read once: it may end in the other thread."""
    return next(iter(tuple(_counts)), None)


def _position() -> str:
    count = _count()
    if count is None:
        return ""
    return f"{count.done} of {count.total}, " if count.total else f"{count.done} done, "


def _left(now: float) -> str:
    """About how long the rest takes, once some are done."""
    count = _count()
    if count is None or not (count.done and count.total):
        return ""
    return f", about {duration((now - count.began) / count.done * max(0, count.total - count.done))} left"


def _bar() -> str:
    count = _count()
    if count is None or not count.total:
        return ""
    full = BAR * min(count.done, count.total) // count.total
    return f"[{'#' * full}{'.' * (BAR - full)}] "
