"""Show the progress of a long run on stderr: a bar on a terminal, otherwise an occasional line."""

import sys
from time import perf_counter
from typing import TextIO

_WIDTH = 30
_SECONDS = 0.2
"""Between two updates of the bar."""
_STEPS = 10
"""Number of lines if it is not a terminal."""


class Progress:
    """Call it with the numbers of finished and of all units. The rate excludes units finished at the first call."""

    def __init__(self, unit: str = "tiles", stream: TextIO | None = None) -> None:
        self.unit, self.stream = unit, stream or sys.stderr
        self.is_terminal = self.stream.isatty()
        self._before: int | None = None
        self._start = self._drawn = perf_counter()
        self._step = 0
        self._open = False

    def __call__(self, done: int, total: int) -> None:
        """Show the progress, unless the last update was too recent."""
        now = perf_counter()
        if self._before is None:
            self._before, self._start = done, now
            self._step = _STEPS * done // max(total, 1)
        elif self.is_terminal and (now - self._drawn >= _SECONDS or done == total):
            self._drawn, self._open = now, True
            self.stream.write(f"\r{self._bar(done, total)}  {self._text(done, total, now)}\x1b[K")
            self.stream.flush()
        elif not self.is_terminal and _STEPS * done // total > self._step:
            self._step = _STEPS * done // total
            print(self._text(done, total, now), file=self.stream, flush=True)

    def close(self) -> None:
        """End the line of the bar, so that further output starts on a new line."""
        if self._open:
            self.stream.write("\n")
            self._open = False

    def _bar(self, done: int, total: int) -> str:
        full = _WIDTH * done // max(total, 1)
        return f"[{'#' * full}{'.' * (_WIDTH - full)}]"

    def _text(self, done: int, total: int, now: float) -> str:
        rate = (done - (self._before or 0)) / max(now - self._start, 1e-9)
        left = round((total - done) / rate) if rate > 0 else 0
        remaining = f", {left // 60}:{left % 60:02d} left" if done < total else ""
        return f"{100 * done // max(total, 1):3d} %  {done} of {total} {self.unit}, {rate:.1f}/s{remaining}"
