"""stdout and stderr of a command that neither their encoding nor their end can stop.

Characters that the encoding lacks are escaped, and so are those that a terminal would obey, such as the escape
character in the name of a file. Where the reader has gone or the disk is full, the command goes on without printing.
"""

import io
import os
import re
import sys
from contextlib import suppress
from threading import RLock

from deploy.text import shown, shown_lines

_COLOR = re.compile(r"(\x1b\[[0-9;]*m)")


_lock = RLock()
_status: list[str] = []
"""The line in place that a terminal shows, if any."""


def _after_fork() -> None:
    """A thread that the child does not have may have held the lock."""
    global _lock
    _lock = RLock()
    _status.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def can_show_status() -> bool:
    """Whether stderr is a terminal, on which `show_status` can show a line in place."""
    return isinstance(sys.stderr, Output) and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def show_status(text: str) -> None:
    """Show a line in place on stderr; the next thing that is printed, or another status, replaces it."""
    stream = sys.stderr
    if isinstance(stream, Output):
        with _lock:
            width = max(20, _columns() - 1)
            _status[:] = [shown(text)[:width]]
            stream.write_raw(f"\r{_status[0]}\x1b[K")


def clear_status() -> None:
    """Take the line in place away."""
    stream = sys.stderr
    with _lock:
        if _status and isinstance(stream, Output):
            _status.clear()
            stream.write_raw("\r\x1b[K")


def _columns() -> int:
    try:
        return os.get_terminal_size(2).columns
    except OSError:
        return 80


def prepare_streams() -> None:
    """Make stdout and stderr safe to print to; those that are closed swallow what is printed.

    Streams that something else has replaced, such as a test's or a notebook's, stay as they are.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next file that is opened would get its number, and be printed into
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open until the process ends
        elif type(stream) is io.TextIOWrapper:
            stream = Output(stream)
        setattr(sys, name, stream)


class Output(io.TextIOWrapper):
    """A text stream that takes over another one, and never fails.

    On a terminal colors pass unless NO_COLOR is set (no-color.org), and on stderr everything that moves a progress
    bar, too.

    Args:
        stream: the other, which is detached.
    """

    def __init__(self, stream: io.TextIOWrapper) -> None:
        encoding = stream.encoding
        stream.flush()
        # lines appear at once in files, too: somebody follows the log of a build
        super().__init__(stream.detach(), encoding, errors="backslashreplace", line_buffering=True)
        self.lost: OSError | None = None
        """Why not everything could be printed; None: it could."""
        self._colors = self.isatty()
        self._plain = bool(os.environ.get("NO_COLOR"))
        self._bars = self.fileno() == 2

    def write(self, text: str, /) -> int:
        """Write text with escapes; the number of its characters."""
        with _lock:
            clear_status()
            return self._write(text)

    def write_raw(self, text: str) -> None:
        """Write and flush text as it is."""
        with suppress(OSError, ValueError):
            super().write(text)
            super().flush()

    def _write(self, text: str) -> int:
        try:
            super().write(self._escaped(text))
        except OSError as error:
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Flush, or drop what cannot be written."""
        try:
            super().flush()
        except OSError as error:
            self._lose(error)

    def _escaped(self, text: str) -> str:
        if self._plain:
            text = _COLOR.sub("", text)
        if self._bars:
            return text if self._colors else "\r".join(map(shown_lines, text.split("\r")))
        if not self._colors:
            return shown_lines(text)
        return "".join(one if _COLOR.fullmatch(one) else shown_lines(one) for one in _COLOR.split(text))

    def _lose(self, error: OSError) -> None:
        """Send what is still buffered, and all that follows, nowhere."""
        self.lost = self.lost or error
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
