"""One logger for everything that TensorRT does in a process.

TensorRT keeps the logger of the first builder or runtime that is alive and ignores later ones, so a builder with a
logger of its own would receive nothing while a runtime exists. Builder and runtime therefore share this one.
"""

import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from deploy.errors import warn

ERROR, WARNING, INFO = 1, 2, 3
"""`ILogger.Severity` as numbers: 0 internal error, 1 error, 2 warning, 3 info, 4 verbose."""
LATEST = 2000
"""Verbose messages that a log keeps: the latest ones. A build logs up to millions."""
MOST_WARNINGS = 100
"""Different warnings that a process shows."""

_LETTERS = "FEWIV"
_loggers: dict[Any, Any] = {}
_lock = threading.Lock()
_told: set[str] = set()
"""Warnings that were shown, their numbers left out."""


class Message(NamedTuple):
    """A message that TensorRT logged."""

    severity: int
    text: str


class Messages(list[Message]):
    """The messages that are wanted, as they come; of the others the latest are kept for `as_text`.

    Args:
        wanted: whether a message is kept in any case.
        latest: how many of the others are kept.
    """

    def __init__(self, wanted: Callable[[Message], bool], latest: int) -> None:
        super().__init__()
        self._wanted = wanted
        self._others: deque[tuple[int, Message]] = deque(maxlen=latest)
        self._left_out = 0

    def add(self, message: Message) -> None:
        """Keep a message, if only for a while; called from any thread."""
        if self._wanted(message):
            self.append(message)
        else:
            self._left_out += len(self._others) == self._others.maxlen
            self._others.append((len(self), message))

    def as_text(self) -> str:
        """The messages as lines of a log file."""
        lines = [f"({self._left_out} earlier verbose messages left out)\n"] if self._left_out else []
        others = deque(self._others)
        for position, message in enumerate([*self, None]):
            while others and others[0][0] <= position:
                lines.append(_line(others.popleft()[1]))
            if message:
                lines.append(_line(message))
        return "".join(lines)


def _line(message: Message) -> str:
    return f"[{_LETTERS[min(max(message.severity, 0), 4)]}] {message.text}\n"


def is_serious(message: Message) -> bool:
    """Whether a message is an error or a warning."""
    return message.severity <= WARNING


def logger(trt: Any) -> Any:
    """The process's only `ILogger` of the module `tensorrt` or `tensorrt_rtx`; it passes messages to `listen` only."""
    with _lock:
        if trt.ILogger not in _loggers:

            class Log(trt.ILogger):
                def __init__(self) -> None:
                    trt.ILogger.__init__(self)
                    self.listeners: list[Messages] = []

                def log(self, severity: Any, msg: str) -> None:
                    # Called from any thread; no exception may pass through TensorRT.
                    for messages in tuple(self.listeners):
                        messages.add(Message(int(severity), msg))

            _loggers[trt.ILogger] = Log()
        return _loggers[trt.ILogger]


@contextmanager
def listen(
    trt: Any,
    wanted: Callable[[Message], bool] = is_serious,
    latest: int = 0,
    tell: Callable[[str], object] = warn,
) -> Iterator[Messages]:
    """Collect what TensorRT logs, in any thread, while the block runs.

    Args:
        trt: the module `tensorrt` or `tensorrt_rtx`.
        wanted: the messages to collect.
        latest: how many of the others are kept for a log file.
        tell: shows a warning of TensorRT; each is shown once in the life of the process.

    Yields:
        The list of messages, which grows until the block ends.
    """
    messages = Messages(wanted, latest)
    log = logger(trt)
    with _lock:
        log.listeners.append(messages)
    try:
        yield messages
    finally:
        with _lock:  # by identity: two lists with the same messages are equal
            log.listeners[:] = [other for other in log.listeners if other is not messages]
    for text in _new_warnings(messages):
        tell(f"TensorRT: {text}")


def _new_warnings(messages: Messages) -> list[str]:
    """Warnings, each in one line, that were not shown yet."""
    found: list[str] = []
    for severity, text in messages:
        if severity == WARNING:
            line = " ".join(text.split())[:300]
            kind = re.sub(r"\d+", "0", line)
            with _lock:
                if kind not in _told and len(_told) < MOST_WARNINGS:
                    _told.add(kind)
                    found.append(line)
    return found
