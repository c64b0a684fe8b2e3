"""Progress bar of a long build, and a clean stop on Ctrl-C."""

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, TypeVar

T = TypeVar("T")
WIDTH = 30
REDRAW_SECONDS = 0.1


class Progress:
    """Progress of a build, from the nested phases that TensorRT reports; thread-safe.

    Args:
        stream: where a bar is drawn, on the last line; None: nowhere.
    """

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream, self._lock, self._drawn = stream, threading.Lock(), 0.0
        self._phases: dict[str, tuple[str | None, int, int]] = {}
        self.fraction = 0.0
        """From 0 to 1; never decreases."""

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """A phase with this number of steps begins, inside a step of its parent."""
        with self._lock:
            self._phases[phase] = parent, max(steps, 1), 0

    def step(self, phase: str, number: int) -> None:
        """Step `number`, counted from 0, of the phase is done."""
        with self._lock:
            parent, steps, _ = self._phases.get(phase, (None, 1, 0))
            self._phases[phase] = parent, steps, min(number + 1, steps)
            self.fraction = max(self.fraction, self._fraction(phase))
            if self._stream and time.monotonic() - self._drawn > REDRAW_SECONDS:
                self._drawn = time.monotonic()
                self._write(f"\r{bar(self.fraction)} {phase}\x1b[K")

    def finish(self, phase: str) -> None:
        """The phase has ended, possibly before its last step."""
        with self._lock:
            self._phases.pop(phase, None)

    def close(self) -> None:
        """Erase the bar."""
        if self._stream and self._drawn:
            self._write("\r\x1b[K")

    def _fraction(self, phase: str) -> float:
        inner, name = 0.0, phase
        # No phase is its own ancestor; the bound keeps a mistake of TensorRT from hanging the build.
        for _ in range(len(self._phases)):
            parent, steps, done = self._phases[name]
            inner = min((done + inner) / steps, 1.0)
            if parent not in self._phases:
                break
            name = parent
        return inner

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # the terminal may be closed; the build continues
            self._stream.write(text)  # pyright: ignore[reportOptionalMemberAccess]
            self._stream.flush()  # pyright: ignore[reportOptionalMemberAccess]


def bar(fraction: float) -> str:
    """Format a progress bar with its percentage."""
    full = round(WIDTH * fraction)
    return f"[{'#' * full}{'.' * (WIDTH - full)}] {100 * fraction:3.0f} %"


def monitor(trt: Any, progress: Progress, stop: threading.Event) -> Any:
    """Create a TensorRT `IProgressMonitor` that reports to `progress`, and ends the build once `stop` is set."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress.step(phase_name, step)
            return not stop.is_set()

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    return Monitor()


def run_cancellable(work: Callable[[threading.Event], T]) -> T:
    """Run `work` in a thread; on Ctrl-C tell it to stop and wait for it.

    TensorRT calls back into Python for messages and progress. Python raises `KeyboardInterrupt` in the main thread
    only, and raised inside such a callback it would pass through C++ and end the process; so it only waits.

    Args:
        work: a function of an event that is set on Ctrl-C, upon which it should return soon.

    Returns:
        What `work` returns.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; `work` has ended.
        BaseException: what `work` raised.
    """
    stop, done = threading.Event(), threading.Event()
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work(stop))
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    # An event instead of `Thread.join`, which Python 3.11 considers finished once Ctrl-C interrupts it. The timeout is
    # for Windows, where Ctrl-C cannot interrupt a wait without one.
    try:
        threading.Thread(target=run, name="build").start()
        while not done.wait(0.2):
            pass
    except KeyboardInterrupt:
        stop.set()
        print("stopping …", file=sys.stderr)
        while not done.is_set():
            with suppress(KeyboardInterrupt):
                done.wait(0.2)
        raise
    if errors:
        raise errors[0]
    return results[0]
