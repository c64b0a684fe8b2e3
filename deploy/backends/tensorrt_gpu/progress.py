"""A long build that shows how far it is and stops cleanly on Ctrl-C."""

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
    """How far a build is, from the nested phases that TensorRT reports; thread-safe.

    `stream` gets a bar on its last line; None for none.
    """

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream, self._lock, self._drawn = stream, threading.Lock(), 0.0
        self._phases: dict[str, tuple[str | None, int, int]] = {}
        self.fraction = 0.0
        """0..1, never falling."""

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """A phase of so many steps begins, inside a step of its parent."""
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
        """The phase has ended, perhaps before its last step."""
        with self._lock:
            self._phases.pop(phase, None)

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._stream and self._drawn:
            self._write("\r\x1b[K")

    def _fraction(self, phase: str) -> float:
        inner, name = 0.0, phase
        for _ in range(
            len(self._phases)
        ):  # no phase is its own ancestor, but a loop here would hang the build
            parent, steps, done = self._phases[name]
            inner = min((done + inner) / steps, 1.0)
            if parent not in self._phases:
                break
            name = parent
        return inner

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # the terminal may have gone; the build goes on
            self._stream.write(text)  # pyright: ignore[reportOptionalMemberAccess]
            self._stream.flush()  # pyright: ignore[reportOptionalMemberAccess]


def bar(fraction: float) -> str:
    """A bar of text and the per cent."""
    full = round(WIDTH * fraction)
    return f"[{'#' * full}{'.' * (WIDTH - full)}] {100 * fraction:3.0f} %"


def monitor(trt: Any, progress: Progress, stop: threading.Event) -> Any:
    """A TensorRT `IProgressMonitor` that reports to `progress`, and ends the build once `stop` is set."""

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
    """Run `work` in a thread and return what it returns; on Ctrl-C set its event, wait for its end, and pass it on.

    TensorRT calls back into Python for messages and progress. Python raises `KeyboardInterrupt` in the main thread
    only, and raised inside such a callback it would go through C++ and end the process; so the main thread just waits.
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

    # An event instead of `Thread.join`, which Python 3.11 takes for finished once Ctrl-C interrupts it. The limit is
    # for Windows, where Ctrl-C cannot end a wait without one.
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
