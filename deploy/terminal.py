"""stdout and stderr of a command that neither their encoding nor their end can stop.

Characters that the encoding lacks are escaped, and so are those that a terminal would obey, such as the escape
character in the name of a file. Where the reader has gone or the disk is full, the command goes on without printing.
"""

import io
import os
import re
import sys
from contextlib import suppress

from deploy.text import shown_lines

_COLOR = re.compile(r"(\x1b\[[0-9;]*m)")


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

    On a terminal colors pass, and on stderr everything that moves a progress bar, too.

    Args:
        stream: the other, which is detached.
    """

    def __init__(self, stream: io.TextIOWrapper) -> None:
        line_buffering, encoding = stream.line_buffering, stream.encoding
        stream.flush()
        super().__init__(stream.detach(), encoding, errors="backslashreplace", line_buffering=line_buffering)
        self.lost: OSError | None = None
        """Why not everything could be printed; None: it could."""
        self._colors = self.isatty()
        self._bars = self.fileno() == 2

    def write(self, text: str, /) -> int:
        """Write text with escapes; the number of its characters."""
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
