"""Signals that stop a command: they unwind it as Ctrl-C does, so that nothing half-written stays."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], object] | signal.Handlers
STOPPING = ("SIGINT", "SIGTERM", "SIGHUP")
"""Signals that ask a process to stop: from the keyboard, from a supervisor, and from a terminal that closes."""


class Stopped(KeyboardInterrupt):
    """A signal stopped the command. Not an `Exception`, so that only who means to handles it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as of a process that the signal ended: 130, 143 or 129."""
        return 128 + self.number


def stopping_signals() -> list[int]:
    """Numbers of `STOPPING` on this system, without those that the process ignores, as `nohup` ignores SIGHUP."""
    numbers = [getattr(signal, name) for name in STOPPING if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def handling(handler: Handler, previous: dict[int, object] | None = None) -> Iterator[None]:
    """Let `handler` handle the signals `STOPPING` in the block.

    Outside the main thread, where Python cannot handle signals, nothing changes.

    Args:
        handler: as `signal.signal` takes it.
        previous: gets the former handlers, which the block's end restores where `handler` has not been replaced.
    """
    previous = {} if previous is None else previous
    try:
        for number in stopping_signals():
            previous[number] = signal.signal(number, handler)
    except ValueError:
        previous.clear()
    try:
        yield
    finally:
        for number, old in previous.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, old)  # pyright: ignore[reportArgumentType]


@contextmanager
def stopping_by_exception() -> Iterator[None]:
    """Raise `Stopped` in the block at the first of the signals `STOPPING`; a second one has its usual effect."""
    previous: dict[int, object] = {}

    def stop(number: int, _frame: FrameType | None) -> None:
        for each, old in previous.items():
            signal.signal(each, old)  # pyright: ignore[reportArgumentType]
        raise Stopped(number)

    with handling(stop, previous):
        yield
