"""The outcomes of a run's tasks, as they come; and what is wrong with all of them at once."""

from collections.abc import Iterable, Iterator
from typing import Any

from deploy.cluster.connect import import_distributed
from deploy.cluster.outcome import Outcome
from deploy.errors import UserError, warn
from deploy.heartbeat import working
from deploy.text import shown

_HEARTBEAT = 60.0
"""Seconds between two lines that tell that a run goes on."""
_MIXED = (
    "the last digits that workers compute differ, as their CPUs or packages do: labels of pixels near a tie depend on "
    "which worker predicted them"
)


def outcomes(client: Any, futures: Iterable[Any], unit: str) -> Iterator[tuple[Any, Outcome]]:
    """The outcomes of futures, in the order in which they end; each warning is given once.

    A worker that is lost costs nothing here: Dask gives its tasks to others.

    Args:
        client: a `distributed.Client`.
        futures: those of the tasks.
        unit: what they are, in messages.

    Raises:
        UserError: a worker is not fit or cannot write, or the scheduler is lost.
    """
    distributed, futures = import_distributed(), list(futures)
    done, known, numbers, mixed = [0], set(), set(), []

    def state() -> str:
        return f"{done[0]} of {len(futures)} {unit} on {len(client.nthreads())} workers"

    with working(state, every=_HEARTBEAT):
        ended = distributed.as_completed(futures, client.loop, with_results=True, raise_errors=False)
        for future, result in ended:
            outcome = _outcome(future.status, result)
            if outcome.refusal is not None:
                raise UserError(f"{outcome.refusal}; then continue with --resume")
            done[0] += 1
            for text in outcome.warnings:
                if text not in known:
                    known.add(text)
                    warn(text)
            numbers.add(outcome.numbers)
            if len(numbers - {""}) == 2 and not mixed:
                mixed.append(True)
                warn(_MIXED)
            yield future, outcome


def _outcome(status: str, result: Any) -> Outcome:
    """What a task returned, or an outcome that says why it returned nothing."""
    if isinstance(result, Outcome):
        return result
    if status != "error":  # the future was canceled, or its scheduler has ended
        return Outcome(refusal="the scheduler has ended or dropped the tasks; start it again")
    error = result[1] if isinstance(result, tuple) else result
    text = shown((str(error).splitlines() or [""])[0])
    if type(error).__name__ == "KilledWorker":
        return Outcome(
            error="every worker that tried it died, perhaps for want of memory (see the workers' logs)"
        )
    if isinstance(error, ImportError):
        return Outcome(refusal=f"a worker cannot import the client's edgedistill ({text}); install it there")
    return Outcome(error=f"unexpected {type(error).__name__}: {text}")
