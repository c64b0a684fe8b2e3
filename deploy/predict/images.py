"""Predict images one by one: a bad one is named at the end and does not stop the rest."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deploy.bundle.manifest import ClassInfo
from deploy.errors import UserError
from deploy.heartbeat import counted
from deploy.inference.call import Timings
from deploy.inference.image_files import output_names, predict_file
from deploy.look import Look
from deploy.predict.record import Record
from deploy.tasks.task import Model, Predicted, Task
from deploy.text import shown

SHOWN = 10
"""Bad images that are named at the end; all are named when they are found."""


@dataclass(frozen=True)
class Output:
    """Where and how results are written."""

    folder: Path
    formats: Sequence[str]
    classes: Sequence[ClassInfo]
    """With the colors to draw in."""
    look: Look


@dataclass
class Tally:
    """What came of the images."""

    timings: list[Timings] = field(default_factory=list)
    bad: list[Path] = field(default_factory=list)
    skipped: int = 0
    seconds: float = 0.0
    images: list[dict[str, Any]] = field(default_factory=list)
    """Of each that was predicted now: its path, its files and its milliseconds."""

    def record(self, engine: str, folder: Path) -> dict[str, Any]:
        """What `predict --json` prints."""
        return {
            "engine": engine,
            "folder": folder,
            "images": self.images,
            "failed": self.bad,
            "done before": self.skipped,
            "seconds": self.seconds,
        }


def predict_images(
    model: Model,
    task: Task,
    paths: Sequence[Path],
    output: Output,
    record: Record,
    say: Callable[[str], object],
) -> Tally:
    """Predict images and write their results; `say` gets a line about each.

    Raises:
        UserError: the only image cannot be predicted, or a result cannot be written.
    """
    tally, began = Tally(), time.perf_counter()
    named = zip(paths, output_names(paths, record.names()), strict=True)
    for path, name in counted(named, len(paths)):
        if record.has(path):
            tally.skipped += 1
            continue
        try:
            image, result = predict_file(model, path)
        except UserError as error:
            if len(paths) == 1:
                raise
            tally.bad.append(path)
            print(f"error: {shown(str(error))}", file=sys.stderr)
            continue
        predicted = Predicted(output.folder / name, image, result, output.classes, output.look, path)
        files = tuple(task.formats[one](predicted) for one in output.formats)
        record.add(path, name, files)
        tally.timings.append(result.timings)
        tally.images.append({"image": path, "files": files, "ms": result.timings.total_ms})
        tally.seconds = time.perf_counter() - began
        height, width = image.shape[:2]
        words = task.words(result, model.classes)
        say(f"{shown(path.name)}  {width}×{height}  {words}  {result.timings.total_ms:.1f} ms")
    return tally


def summary(tally: Tally, count: int, engine: str, folder: Path) -> list[str]:
    """The last lines: how many, how fast, and what could not be predicted."""
    done, lines = (
        len(tally.timings),
        [f"{tally.skipped} of {count} images were done before"] if tally.skipped else [],
    )
    if not done and not tally.skipped:
        lines.append(f"0 of {count} images predicted")
    elif done:
        stages = ("total_ms", "preprocess_ms", "engine_ms", "postprocess_ms")
        total, before, engine_ms, after = (
            np.median([getattr(one, stage) for one in tally.timings]) for stage in stages
        )
        rate = done / tally.seconds if tally.seconds else 0.0
        lines.append(
            f"{done} of {count} images predicted by {engine}, median {total:.1f} ms "
            f"(preprocess {before:.1f}, engine {engine_ms:.1f}, postprocess {after:.1f}), "
            f"{rate:.1f} images/s with reading and writing; results in {folder}"
        )
    if tally.bad:
        named = ", ".join(shown(path.name) for path in tally.bad[:SHOWN])
        more = f" and {len(tally.bad) - SHOWN} more" if len(tally.bad) > SHOWN else ""
        lines.append(f"{len(tally.bad)} could not be predicted: {named}{more}")
    return lines
