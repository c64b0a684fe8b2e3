"""Measure settings against each other, in turns and within a time limit, and choose the fastest that is right."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from deploy.backends.engine import Engine
from deploy.backends.proof import passes
from deploy.backends.setting import Setting
from deploy.bundle.golden_file import read_golden
from deploy.bundle.manifest import Manifest
from deploy.errors import UserError

SECONDS = 1.0
"""About how long to measure, not counting the warm-up runs."""
QUANTILE = 0.2
"""Of the times of an engine the one that counts: other work on the machine only adds, and the choice is for good."""
BLOCK, BLOCKS = 3, 7
"""Consecutive runs of an engine in one turn, and turns of each; fewer when the time is up."""
TOLERANCE = 0.02
"""Where no engine is right, share of the golden labels by which one may be worse than the best and still be chosen."""
NEAR = 1.03
"""Times the smallest time within which fewer threads are preferred: they leave cores to the program, or save power."""
CONTENDER = 1.3
"""Times the smallest time within which the fastest setting of another backend is tuned, too."""

GOLDEN_IMAGES = 4
"""Golden images that a backend is checked on, at most."""

K = TypeVar("K")


class Golden(NamedTuple):
    """The inputs to measure with, and what is right for them."""

    inputs: np.ndarray
    """N×… as the network reads them; N is at least 1."""
    labels: np.ndarray | None
    """uint8 N×H×W; None: unknown."""

    def agreement(self, engine: Engine) -> float | None:
        """Share of the labels that an engine reproduces, image by image; None where they are unknown."""
        if self.labels is None:
            engine.run(self.inputs[:1])  # to warm up
            return None
        pairs = ((self.inputs[one : one + 1], self.labels[one]) for one in range(len(self.inputs)))
        return float(np.mean([np.mean(engine.run(image)["labels"][0] == labels) for image, labels in pairs]))


def read_golden_of(folder: Path, manifest: Manifest) -> Golden:
    """The golden inputs and labels; zeros and no labels if no golden file fits."""
    spec = manifest.input
    size, channels = (spec.height, spec.width), len(spec.channels)
    zeros = np.zeros((1, *size, channels) if spec.layout == "NHWC" else (1, channels, *size), spec.dtype)
    with suppress(UserError):
        golden = read_golden(folder, manifest)
        return Golden(golden["inputs"][:GOLDEN_IMAGES], golden["labels"][:GOLDEN_IMAGES])
    return Golden(zeros, None)


def time_in_turns(engines: Mapping[K, Engine], batch: np.ndarray, seconds: float) -> dict[K, float]:
    """Milliseconds of one run of each engine (the `QUANTILE`); takes about `seconds` in all.

    Args:
        engines: what to measure; each has run before.
        batch: input of one image.
        seconds: time limit; each engine is measured once even if that takes longer.
    """
    times: dict[K, list[float]] = {name: [] for name in engines}
    end = time.perf_counter() + seconds
    for _ in range(BLOCKS):
        for name, engine in engines.items():
            engine.run(batch)  # not counted: the threads of the other engine go to sleep during it
            for _ in range(BLOCK):
                start = time.perf_counter()
                engine.run(batch)
                times[name].append(time.perf_counter() - start)
                if time.perf_counter() > end:
                    break
        if time.perf_counter() > end:
            break
    return {name: 1000 * float(np.quantile(values, QUANTILE)) for name, values in times.items()}


def right(manifest: Manifest, agreements: Mapping[Setting, float | None]) -> list[Setting]:
    """The settings that pass their gate on the golden labels.

    If none does, those in fp32 (or, if fp32 was not asked for, all) that are about as good as the best.
    """
    passed = [setting for setting, share in agreements.items() if passes(manifest, setting, share)]
    if passed:
        return passed
    known = {setting: share or 0.0 for setting, share in agreements.items()}
    known = {setting: share for setting, share in known.items() if setting.precision == "fp32"} or known
    return [setting for setting, share in known.items() if share >= max(known.values()) - TOLERANCE]


def contenders(milliseconds: Mapping[Setting, float]) -> list[Setting]:
    """The fastest setting of each backend, the fastest of all first, without those that are far behind it."""
    fastest: dict[str, Setting] = {}
    for setting in sorted(milliseconds, key=milliseconds.__getitem__):
        fastest.setdefault(setting.backend, setting)
    limit = CONTENDER * min(milliseconds.values())
    return [setting for setting in fastest.values() if milliseconds[setting] <= limit]


def most_frugal(milliseconds: Mapping[Setting, float], cores: int) -> Setting:
    """Of the settings that are about as fast as the fastest, the one with the fewest threads, sleeping if it may.

    Of equals the fastest.
    """
    limit = NEAR * min(milliseconds.values())
    near = [setting for setting, time in milliseconds.items() if time <= limit]
    return min(near, key=lambda one: (one.threads or cores, one.spinning, milliseconds[one]))


def affordable(settings: Sequence[Setting], milliseconds: float, others: int) -> Sequence[Setting]:
    """As many of the settings as can be measured in about `SECONDS`, each three times, beside `others`.

    Args:
        settings: in order of preference.
        milliseconds: about how long one run takes.
        others: number of settings that are measured anyway.
    """
    return settings[: max(0, int(SECONDS * 1000 / (3 * milliseconds)) - others)]


def open_within(
    settings: Sequence[Setting], open_one: Callable[[Setting], Engine], seconds: float
) -> dict[Setting, Engine]:
    """Open as many settings as fit into the time limit, in their order; at least one if there is any."""
    engines: dict[Setting, Engine] = {}
    end = time.perf_counter() + seconds
    for setting in settings:
        engines[setting] = open_one(setting)
        if time.perf_counter() > end:
            break
    return engines
