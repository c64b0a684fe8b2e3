"""Logs of a training: a progress bar, a JSONL file, TensorBoard events and the run's tracker."""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch.utils.tensorboard import SummaryWriter

from deploy.files.atomic import atomic_write
from deploy.heartbeat import told, working
from deploy.text import duration, shown_lines
from deploy.verbosity import is_quiet

console = Console(stderr=True)
IMPORTANT = ("warning:", "error:")
"""How lines begin that are printed at any level."""

ESTIMATE_S = 600.0
"""How far back the estimate of the remaining time looks: a step of a large network may take a minute."""


def say(line: str) -> None:
    """Print a line to stderr as it is, above the progress bar if there is one; if quiet, only warnings."""
    if is_quiet() and not line.startswith(IMPORTANT):
        return
    console.print(shown_lines(line), markup=False, emoji=False, highlight=False, soft_wrap=True)
    told()


class TrainLog:
    """Logs of one training stage, opened at the step that it starts from.

    `metrics.jsonl` holds one object per logged step. Entries later than the resumed step are dropped, so an interrupted
    and an uninterrupted run write the same lines, except for times.

    Args:
        folder: of the stage.
        stage: its name.
        start: the number of finished steps.
        steps: the number of all steps.
        images_per_step: for the throughput.
        track: called with the stage, the logged values and the step.
    """

    def __init__(
        self,
        folder: Path,
        stage: str,
        start: int,
        steps: int,
        images_per_step: int,
        track: Callable[[str, Mapping[str, float], int], None],
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "metrics.jsonl"
        self.spent = _drop_after(self._path, start)
        """Seconds that earlier processes logged for the stage, those of lost steps too."""
        self._file = self._path.open("a", encoding="utf-8")
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1 if start else None)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[terms]}"),
            console=console,
            speed_estimate_period=ESTIMATE_S,
        )
        self._task = self._progress.add_task(stage, total=steps, completed=start, terms="")
        self._stage, self._steps, self._images_per_step, self._track = stage, steps, images_per_step, track
        self._last = (start, time.perf_counter())
        self._idle = ExitStack()

    def __enter__(self) -> "TrainLog":
        if console.is_terminal and not is_quiet():
            self._progress.start()
        else:
            self._idle.enter_context(working(self._position, say))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if console.is_terminal:
            self._progress.stop()
        self._idle.close()
        self._file.close()
        self._events.close()

    def advance(self) -> None:
        """Advance the progress bar by one step."""
        self._progress.advance(self._task)

    def _position(self) -> str:
        task = self._progress.tasks[0]
        return f"{self._stage} {task.completed:.0f} of {task.total:.0f} steps"

    def write(self, step: int, values: Mapping[str, float], seconds: float = 0.0) -> None:
        """Log `values` as of `step`, with the throughput since the last call, and the `seconds` spent on the stage."""
        last_step, last_time = self._last
        now = time.perf_counter()
        speed = (step - last_step) * self._images_per_step / max(now - last_time, 1e-9)
        self._last = (step, now)
        self._record(step, {**values, "images_per_s": speed}, seconds=seconds)
        terms = " ".join(f"{name} {value:.3g}" for name, value in values.items() if name != "lr")
        self._progress.update(self._task, terms=f"{terms} · {speed:.1f} img/s")
        if not console.is_terminal:  # lines instead of a progress bar
            left = duration((self._steps - step) * self._images_per_step / max(speed, 1e-9))
            say(f"{self._stage} {step}/{self._steps}: {terms} · {speed:.1f} img/s, {left} left")

    def write_scores(self, step: int, scores: Mapping[str, float]) -> None:
        """Log validation scores as of `step`, if there are any."""
        if not scores:
            return
        values = {f"val_{name}": value for name, value in scores.items()}
        self._record(step, values)
        say(f"{self._stage} {step}: " + " ".join(f"{k} {v:.4f}" for k, v in values.items()))
        self._last = (step, time.perf_counter())

    def _record(self, step: int, values: Mapping[str, float], **unplotted: float) -> None:
        self._file.write(json.dumps({"step": step, **values, **unplotted}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        self._track(self._stage, values, step)


def _drop_after(path: Path, step: int) -> float:
    """Drop all lines after `step`, and lines that are damaged, as the last one is if the process was killed.

    Returns:
        The largest of the logged seconds, before lines are dropped.
    """
    if not path.exists():
        return 0.0
    lines, kept, spent = path.read_text(encoding="utf-8", errors="replace").splitlines(), [], 0.0
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            at, seconds = int(entry["step"]), float(entry.get("seconds", 0))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            if number < len(lines):
                say(
                    f"warning: {path}: line {number} is damaged and left out; the training itself is not affected"
                )
            continue
        spent = max(spent, seconds)
        if at <= step and step > 0:
            kept.append(line)
    with atomic_write(path, "w") as file:
        file.writelines(f"{line}\n" for line in kept)
    return spent
