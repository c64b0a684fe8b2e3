"""One logger for everything that TensorRT does in a process.

TensorRT keeps the logger of the first builder or runtime that is alive and ignores later ones, so a builder with a
logger of its own would receive nothing while a runtime exists. Builder and runtime therefore share this one.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

ERROR, WARNING = 1, 2
"""`ILogger.Severity` as numbers: 0 internal error, 1 error, 2 warning, 3 info, 4 verbose."""

_LETTERS = "FEWIV"
_loggers: dict[Any, Any] = {}
_lock = threading.Lock()


class Message(NamedTuple):
    """A message that TensorRT logged."""

    severity: int
    text: str


def logger(trt: Any) -> Any:
    """The process's only `ILogger` of the module `tensorrt` or `tensorrt_rtx`; it passes messages to `listen` only."""
    with _lock:
        if trt.ILogger not in _loggers:

            class Log(trt.ILogger):
                def __init__(self) -> None:
                    trt.ILogger.__init__(self)
                    self.listeners: list[list[Message]] = []

                def log(self, severity: Any, msg: str) -> None:
                    # Called from any thread; no exception may pass through TensorRT.
                    for messages in tuple(self.listeners):
                        messages.append(Message(int(severity), msg))

            _loggers[trt.ILogger] = Log()
        return _loggers[trt.ILogger]


@contextmanager
def listen(trt: Any) -> Iterator[list[Message]]:
    """Collect what TensorRT logs, in any thread, while the block runs.

    Args:
        trt: the module `tensorrt` or `tensorrt_rtx`.

    Yields:
        The list of messages, which grows until the block ends.
    """
    messages: list[Message] = []
    log = logger(trt)
    with _lock:
        log.listeners.append(messages)
    try:
        yield messages
    finally:
        with _lock:  # by identity: two lists with the same messages are equal
            log.listeners[:] = [other for other in log.listeners if other is not messages]


def as_text(messages: list[Message]) -> str:
    """The messages as lines of a log file."""
    return "".join(f"[{_LETTERS[min(max(level, 0), 4)]}] {text}\n" for level, text in messages)
