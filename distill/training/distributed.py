"""Communication between the processes of a run.

They go on, fail and stop together: what one of them finds out is agreed on, at places that all of them pass. Only the
main process reads and writes the run's files; the others receive their content, as the file system of another machine
may show old files for a minute. What cannot be agreed on, a process that is gone, ends the others in one line.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import distributed

from deploy.errors import UserError
from distill.training.log import say
from distill.training.signals import StoppedSafely, pending_request

T = TypeVar("T")

SILENCE = timedelta(minutes=30)
"""How long a process waits for another one in the middle of a training: longer than one loads or compiles."""
PATIENCE = timedelta(days=1)
"""How long the others wait while the main process exports, or for another run that fills the same cache."""
PAUSE = 0.05
"""Seconds between looks at whether the others have come."""


class ProcessFailed(UserError):
    """Another process has failed, and has said why."""


def sum_over_processes(numbers: Sequence[int], accelerator: Accelerator) -> list[int]:
    """The exact element-wise sum of `numbers` over processes; all processes must call, with equally many numbers."""
    if accelerator.num_processes == 1:
        return list(numbers)
    mine = torch.tensor(numbers, dtype=torch.int64, device=accelerator.device)
    return accelerator.reduce(mine).tolist()  # pyright: ignore[reportAttributeAccessIssue]


def sum_unless_stopped(
    numbers: Sequence[int], accelerator: Accelerator, problem: UserError | StoppedSafely | None = None
) -> list[int]:
    """`sum_over_processes`, where each process may instead bring what keeps it from going on.

    Args:
        numbers: to be summed.
        accelerator: the processes.
        problem: what happened in this one.

    Raises:
        UserError: one process failed: all raise.
        StoppedSafely: none failed, but one is to stop: all raise.
    """
    flags = [isinstance(problem, UserError), isinstance(problem, StoppedSafely)]
    failed, stopping, *totals = sum_over_processes([*map(int, flags), *numbers], accelerator)
    if failed:
        raise (
            problem
            if isinstance(problem, UserError)
            else ProcessFailed("another process failed; see its message")
        )
    if stopping:
        raise problem or pending_request() or StoppedSafely(signal.SIGTERM)
    return totals


def any_process(flag: bool, accelerator: Accelerator) -> bool:
    """Whether `flag` is set in any process; all processes must call."""
    return sum_over_processes([int(flag)], accelerator)[0] > 0


def together(work: Callable[[], T], accelerator: Accelerator) -> T:
    """Do the same in all processes.

    Raises:
        UserError: it failed in one of them: all raise.
    """
    result, problem = None, None
    try:
        result = work()
    except UserError as error:
        problem = error
    wait_for_all(accelerator)
    sum_unless_stopped([], accelerator, problem)
    return result  # pyright: ignore[reportReturnType]


def main_alone(work: Callable[[], T], accelerator: Accelerator) -> T | None:
    """Do something in the main process while the others wait; its result there, None in the others.

    Raises:
        UserError: it failed: all raise, with the exit code of the main process.
    """
    result, problem = None, None
    if accelerator.is_main_process:
        try:
            result = work()
        except UserError as error:
            problem = error
    code = shared(None if problem is None else problem.exit_code, accelerator)
    if problem is not None:
        raise problem
    if code is not None:
        failed = ProcessFailed("the main process failed; see its message")
        failed.exit_code = code
        raise failed
    return result


def by_main(work: Callable[[], T], accelerator: Accelerator) -> T:
    """Do something in the main process, and give its result to all. Raises `UserError` as `main_alone` does."""
    return shared(main_alone(work, accelerator), accelerator)


def shared(value: Any, accelerator: Accelerator) -> Any:
    """The value that the main process passes, in all processes; all must call."""
    if accelerator.num_processes == 1:
        return value
    wait_for_all(accelerator)
    [value] = broadcast_object_list([value])
    return value


def from_all(value: T, accelerator: Accelerator) -> list[T]:
    """The values of all processes, in all of them; all must call."""
    if accelerator.num_processes == 1:
        return [value]
    wait_for_all(accelerator)
    return gather_object([value])


def require_same(value: object, accelerator: Accelerator, problem: str) -> None:
    """Raise `UserError` in all processes unless their values are equal; `problem` says what differs, and the remedy."""
    first, *others = from_all(value, accelerator)
    different = [str(rank) for rank, other in enumerate(others, 1) if other != first]
    if different:
        raise UserError(f"process {', '.join(different)} of this run and the main process: {problem}")


def wait_for_all(accelerator: Accelerator) -> None:
    """Wait, for as long as it takes, until all processes are here; signals are handled meanwhile."""
    if accelerator.num_processes == 1:
        return
    arrival = distributed.barrier(_patient_group(), async_op=True)
    assert arrival is not None
    while not arrival.is_completed():
        time.sleep(PAUSE)
    arrival.wait()


def is_on_main_machine() -> bool:
    """Whether this process runs on the machine of the main process, as far as the launcher tells."""
    return os.environ.get("GROUP_RANK", "0") == "0"


@contextmanager
def named_losses() -> Iterator[None]:
    """Say in one line that another process is gone, where torch has a traceback.

    Raises:
        ProcessFailed: the connection to another process broke in the block, or it kept silent for too long.
    """
    try:
        yield
    except RuntimeError as error:  # gloo has no errors of its own
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            raise ProcessFailed(
                "another process of this run has ended or cannot be reached; see its message, and continue from the"
                " last checkpoint with --resume"
            ) from error
        if "Expected to have finished reduction" in str(error):
            raise UserError(
                "a parameter of the network takes no part in its output, so that several processes cannot train it;"
                " freeze it (requires_grad_(False)), or train in one process"
            ) from error
        raise


def warn_of_a_lone_process(accelerator: Accelerator) -> None:
    """Warn if `accelerate launch --cpu` started a single process: without MPI it ignores the number requested."""
    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" and "MASTER_ADDR" in os.environ
    if asked and accelerator.num_processes == 1:
        say(
            "warning: `accelerate launch --cpu` started one process; for more use `accelerate launch --multi_gpu`,"
            " which needs no GPU, or torchrun"
        )


@cache
def _patient_group() -> distributed.ProcessGroup:
    """A group that waits longer than that of a training, on CPUs, whose waits can be looked at."""
    group = distributed.new_group(backend="gloo", timeout=PATIENCE)
    assert isinstance(group, distributed.ProcessGroup)
    return group
