"""A guard around the libraries that run networks: a fork waits for the calls that other threads have in them.

A child of `os.fork` has only the thread that forked. What another thread holds at that moment, such as a lock inside
ONNX Runtime or OpenVINO, nobody in the child ever releases, and its next call would wait for ever. So would ending a
session there: it waits for its threads.
"""

import ctypes
import os
import signal
from threading import Condition, RLock, Timer, get_ident
from weakref import WeakSet

from deploy.errors import UserError

WAIT = 10.0
"""Seconds that a fork waits for calls that are running. Calls that begin meanwhile wait for the fork."""
REMEDY = (
    "load the model in the process that uses it, or start processes by multiprocessing.get_context('spawn')"
)


class _Calls:
    """The calls that are inside a library, counted by thread, and the forks that wait for them."""

    def __init__(self) -> None:
        self.change = Condition(RLock())
        self.inside: dict[int, int] = {}
        self.forking = 0
        self.unfinished = False
        self.broken = False
        """Whether this process was forked although a call was running."""
        self.stopped: BaseException | None = None
        """What a signal raised while a fork waited, to be raised after it."""

    def before_fork(self) -> None:
        self.change.acquire()
        self.forking += 1
        self.unfinished = True  # also where a signal ends the wait
        try:
            self.unfinished = not self.change.wait_for(lambda: not self.inside.keys() - {get_ident()}, WAIT)
        except BaseException as error:  # Python would print and forget it
            self.stopped = error

    def after_fork_in_parent(self) -> None:
        stopped, self.stopped = self.stopped, None
        self.forking -= 1
        self.change.notify_all()
        self.change.release()
        if stopped is not None:
            _raise_soon(stopped)

    def after_fork_in_child(self) -> None:
        me = get_ident()
        self.inside = {me: self.inside[me]} if me in self.inside else {}
        self.change, self.forking, self.stopped = Condition(RLock()), 0, None
        self.broken = self.broken or self.unfinished
        for owner in _kept:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))


def _raise_soon(error: BaseException) -> None:
    """Raise what a signal has raised once more, by the same signal: in a moment, when the fork is over."""
    number = getattr(error, "number", signal.SIGINT)
    handler = signal.getsignal(number)

    def again(*_: object) -> None:
        signal.signal(number, handler)
        raise error

    def send() -> None:
        if signal.getsignal(number) is again:  # not if another one came first
            os.kill(os.getpid(), number)

    signal.signal(number, again)
    Timer(0.01, send).start()


_kept: WeakSet[object] = WeakSet()
_calls = _Calls()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_calls.before_fork,
        after_in_parent=_calls.after_fork_in_parent,
        after_in_child=_calls.after_fork_in_child,
    )


class _InLibrary:
    """See `in_library`."""

    def __enter__(self) -> None:
        me = get_ident()
        with _calls.change:
            if _calls.broken:
                raise UserError(
                    f"this process was forked while another thread ran a network for more than {WAIT:g} s, so calls"
                    f" could wait for ever; {REMEDY}"
                )
            while _calls.forking and me not in _calls.inside:
                _calls.change.wait()
            _calls.inside[me] = _calls.inside.get(me, 0) + 1

    def __exit__(self, *_: object) -> None:
        me = get_ident()
        with _calls.change:
            depth = _calls.inside[me] - 1
            if depth:
                _calls.inside[me] = depth
                return
            del _calls.inside[me]
            if _calls.forking:
                _calls.change.notify_all()


in_library = _InLibrary()
"""A context around each use of a library with locks or threads of its own, so that no fork happens inside.

Raises:
    UserError: the process was forked inside nevertheless, as the use took longer than `WAIT` seconds.
"""


def keep_in_children(owner: object) -> None:
    """Never destroy `owner` in a forked child, not even when that ends: it holds sessions with threads."""
    _kept.add(owner)


def require_same_process(loaded_in: int, name: str) -> None:
    """Raise `UserError` unless this is the process with the number `loaded_in`: a GPU does not follow into a child."""
    if os.getpid() != loaded_in:
        raise UserError(
            f"{name}: was loaded before this process was forked, and a GPU does not follow into it; {REMEDY}"
        )
