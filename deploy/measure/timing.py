"""Time bundles on every backend that can run them here, in every precision that they have, all in turns."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deploy.backends.auto import installed, tensorrt_here
from deploy.backends.engine import CPU_MODELS, PRECISIONS, Engine, engine_files
from deploy.backends.open import open_engine
from deploy.bundle.bundle_files import read_manifest, verify_files
from deploy.errors import UserError, warn
from deploy.heartbeat import working
from deploy.inference.call import Timings
from deploy.inference.preprocess import prepare
from deploy.latency.latency import measure_interleaved, sample_image
from deploy.measure.machine import describe
from deploy.measure.records import Candidate, Measurement, Row, Shape, Timed

CPU_PRECISIONS = ("fp32", "int8")
"""Those that are worth measuring on a CPU: fp16 models run there in float32."""
WARMUP = 2
BLOCK = 5
"""Consecutive inferences of a form before the next one's turn."""
MIN_RUNS, MAX_RUNS = 5, 200
TOGETHER = 32
"""Most forms that are open at a time, and take turns."""

Say = Callable[[str], None]
"""Prints a line of progress."""


class Subject(NamedTuple):
    """A bundle to time."""

    folder: Path
    name: str
    candidate: Candidate | None = None


class Form(NamedTuple):
    """How a bundle runs."""

    backend: str
    precision: str


Key = tuple[int, Form]
"""A form of a bundle: the position of the bundle in its group, and how it runs."""


@dataclass(frozen=True)
class Result:
    """The timings of one inference, as `measure_interleaved` reads them."""

    timings: Timings


class EngineAlone:
    """A model for `measure_interleaved` that takes the network's input itself: nothing but the engine is timed.

    Args:
        engine: the engine.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __call__(self, image: np.ndarray) -> Result:
        start = time.perf_counter()
        self.engine.run(image)
        return Result(Timings(0.0, 1000 * (time.perf_counter() - start), 0.0))


def measure_bundles(
    subjects: Sequence[Subject],
    threads: int | None,
    seconds: float,
    say: Say,
    precisions: Collection[str] = PRECISIONS,
) -> Measurement:
    """Time bundles on all backends, in all their precisions.

    Args:
        subjects: the bundles; up to `TOGETHER` forms take turns, so that interference affects all of them alike.
        threads: CPU threads of the engines; None: their own choice.
        seconds: about how long to time each form.
        say: told how far the measurement is.
        precisions: those to time; default: all.

    Raises:
        UserError: a bundle is damaged, or no backend runs it.
    """
    groups = _groups(subjects, precisions)
    rows = [row for group in groups for row in _measure_group(group, threads, seconds, say)]
    return Measurement(describe(), threads, tuple(rows))


def _groups(
    subjects: Sequence[Subject], precisions: Collection[str]
) -> Iterator[list[tuple[Subject, list[Form]]]]:
    """Subjects with their forms, in groups of at most `TOGETHER` forms."""
    group: list[tuple[Subject, list[Form]]] = []
    for subject in subjects:
        there = forms_of(subject.folder)
        forms = [form for form in there if form.precision in precisions]
        if not forms:
            listed = ", ".join(dict.fromkeys(form.precision for form in there))
            raise UserError(f"{subject.name}: has no model in {', '.join(precisions)}; it has {listed}")
        if group and sum(len(others) for _, others in group) + len(forms) > TOGETHER:
            yield group
            group = []
        group.append((subject, forms))
    yield group


def forms_of(folder: Path) -> list[Form]:
    """The backends and precisions in which a bundle can run here.

    Raises:
        UserError: `folder` is no bundle, or no backend is installed.
    """
    files = read_manifest(folder).files
    found = {name: [one for one in CPU_PRECISIONS if CPU_MODELS[one] in files] for name in installed()}
    for name in tensorrt_here(folder, "auto"):
        found[name] = sorted(engine_files(folder, name), key=PRECISIONS.index, reverse=True)
    return [Form(backend, precision) for backend, precisions in found.items() for precision in precisions]


def _measure_group(
    group: Sequence[tuple[Subject, Sequence[Form]]], threads: int | None, seconds: float, say: Say
) -> list[Row]:
    """Time some bundles in turns."""
    shapes: list[Shape] = []
    models: dict[Key, tuple[EngineAlone, np.ndarray]] = {}
    for number, (subject, forms) in enumerate(group):
        manifest = read_manifest(subject.folder)
        verify_files(subject.folder, manifest)
        shapes.append(Shape.of(manifest.input, manifest.outputs, manifest.task))
        image = prepare(sample_image(subject.folder, manifest.input)[0], manifest.input)[0][None]
        with working(f"opening {subject.name} ({number + 1} of {len(group)})", say):
            for form, engine in _open(subject, forms, threads).items():
                models[number, form] = EngineAlone(engine), image
    what = f"timing {len(models)} forms in turns, about {seconds * len(models):.0f} s"
    say(what)
    with working(what, say):
        timed = _timed_in_turns(models, seconds)
    return [
        Row(
            subject.name,
            shapes[number],
            tuple(found for (owner, _), found in timed.items() if owner == number),
            subject.candidate,
        )
        for number, (subject, _) in enumerate(group)
    ]


def _open(subject: Subject, forms: Sequence[Form], threads: int | None) -> dict[Form, Engine]:
    """The forms of a bundle that open; a warning says why another does not."""
    engines: dict[Form, Engine] = {}
    refusals: list[UserError] = []
    for form in forms:
        try:
            engines[form] = open_engine(subject.folder, form.backend, threads, form.precision)
        except UserError as refusal:
            refusals.append(refusal)
    if not engines:
        raise refusals[0]
    for refusal in refusals:
        warn(f"{refusal}; not measured")
    return engines


def _timed_in_turns(models: Mapping[Key, tuple[EngineAlone, np.ndarray]], seconds: float) -> dict[Key, Timed]:
    """Statistics of each form; all of them run equally often, `seconds` on average."""
    pairs = list(models.values())
    for model, image in pairs:  # the first inferences are slower
        for _ in range(WARMUP):
            model(image)
    turn = sum(model(image).timings.engine_ms for model, image in pairs) / 1000
    uncounted = 1 / BLOCK  # the first of each turn
    runs = int(np.clip(seconds * len(pairs) / turn / (1 + uncounted), MIN_RUNS, MAX_RUNS))
    stats = measure_interleaved(pairs, runs, warmup=0, block=BLOCK)
    engines = [one.engine for one in stats]
    return {
        key: Timed(*key[1], runs, engine.p50, engine.p90, engine.p99)
        for key, engine in zip(models, engines, strict=True)
    }
