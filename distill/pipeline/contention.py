"""Whether other programs take the cores of a training on a CPU, whose threads wait for each other at every layer."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from distill.training.log import say

TASKS = Path("/proc/self/task")
SPIN = "GOMP_SPINCOUNT"
"""How often a thread of libgomp looks whether the others have come before it sleeps; 0: it sleeps at once."""
WAITING = 0.15
"""Share of their time that threads wait for a core from which it is said. On an idle machine it was 0.01 to 0.02."""


@contextmanager
def warning_of_other_work(environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Warn if threads have waited for cores in the block, and say what makes it cost less.

    Linux alone tells. Of two threads one that waits for the other holds its core, so that a single busy program beside
    them made a training 5 to 8 times slower; sleeping instead, 1.9 times.
    """
    threads = torch.get_num_threads()
    began, before = time.perf_counter(), waited()
    yield
    told = SPIN in environment or "OMP_WAIT_POLICY" in environment
    if threads == 1 or told or before is None:
        return
    share = ((waited() or before) - before) / (threads * max(1e-9, time.perf_counter() - began))
    if share >= WAITING:
        say(
            f"warning: other programs use these cores: the {threads} threads waited {min(share, 1):.0%} of the time"
            f" for one, and hold theirs while they wait for each other; start with {SPIN}=0 where that goes on"
        )


def waited() -> float | None:
    """Seconds that the threads of this process were ready and had no core; None where the system does not tell."""
    delays: list[int] = []
    for task in TASKS.iterdir() if TASKS.is_dir() else ():
        with suppress(OSError, ValueError, IndexError):  # a thread has ended, or the kernel does not tell
            delays.append(int((task / "schedstat").read_text().split()[1]))
    return sum(delays) / 1e9 if delays else None
