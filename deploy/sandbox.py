"""`edgedistill verify --sandbox`: check a bundle in a child process with limits on memory and time.

What a bundle declares is checked before it is opened (`deploy.bundle`). What its network does is known only when it
runs, and a runtime in native code may take any amount of memory or time: here the system stops it. The limits guard
against exhaustion, not against native code that is taken over: the child has the rights of the user.
"""

import os
import re
import resource
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from deploy.errors import GateFailed, UserError
from deploy.fresh_python import python_command
from deploy.host import usable_cores

MEGABYTES = 4096
SECONDS = 120
LARGEST_FILE = 64 << 20
"""Bytes of a file that the child may write, its output included."""
_ROOT = Path(__file__).resolve().parents[1]
_CHILD = """
import runpy
from deploy.sandbox import limit
limit(int(sys.argv.pop(1)), int(sys.argv.pop(1)))
runpy.run_module("deploy", run_name="__main__", alter_sys=True)
"""
_NO_MEMORY = re.compile(r"not enough memory|bad_alloc|allocate", re.IGNORECASE)
"""What is left of an allocation that failed in native code is its text."""


class Limits(NamedTuple):
    """What the child may take."""

    megabytes: int = MEGABYTES
    """Of address space."""
    seconds: int = SECONDS
    """By the clock; of CPU time, so many times the number of cores."""


def run_limited(argv: Sequence[str], what: str, limits: Limits) -> str:
    """Run a command of `python -m deploy` in the sandbox.

    A GPU is hidden from it, as drivers reserve more address space than any limit.

    Args:
        argv: the command and its arguments.
        what: what is checked, for messages.
        limits: of the child.

    Returns:
        What it printed.

    Raises:
        GateFailed: it exceeded a limit, crashed, or failed its check.
        UserError: it reported an error.
    """
    for name, value in limits._asdict().items():
        if value < 1:
            raise UserError(f"the sandbox's limit of {name} is {value}; give at least 1")
    command = python_command(_CHILD, [*map(str, limits), *argv])
    own = {"PYTHONPATH": str(_ROOT), "CUDA_VISIBLE_DEVICES": "", "MALLOC_ARENA_MAX": "2"}
    own |= {"OPENBLAS_NUM_THREADS": "1"}  # each of its threads reserves memory
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        code = _wait(command, os.environ | own, out, err, limits.seconds)
        printed, errors = _last_lines(out), " ".join(_last_lines(err)[-1:])
    if code == 0:
        return "\n".join(printed)
    if code == 1 and errors == "" and printed:
        failed = [line for line in printed if "FAILED" in line]
        raise GateFailed("; ".join(failed or printed[-1:]))
    raise _failure(code, errors, what, limits)


def limit(megabytes: int, seconds: int) -> None:
    """Limit this process; called in the child before it reads anything of the bundle."""
    cpu = seconds * (usable_cores() or 1)
    for kind, most in (
        (resource.RLIMIT_AS, megabytes << 20),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_FSIZE, LARGEST_FILE),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (most, hard) if hard == resource.RLIM_INFINITY else (min(most, hard), hard))


def _wait(
    command: Sequence[str], env: dict[str, str], out: IO[bytes], err: IO[bytes], seconds: int
) -> int | None:
    """Exit code of the command; None where it was still running after the time."""
    process = subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _last_lines(file: IO[bytes]) -> list[str]:
    file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
    return file.read().decode("utf-8", "replace").strip().splitlines()


def _failure(code: int | None, errors: str, what: str, limits: Limits) -> UserError:
    if code is None or code == -signal.SIGXCPU:
        return GateFailed(
            f"{what}: not finished after {limits.seconds} s in the sandbox; do not use this bundle"
        )
    if _NO_MEMORY.search(errors):
        return GateFailed(
            f"{what}: needs more than {limits.megabytes} MB in the sandbox; do not use this bundle"
        )
    if code == 2:
        return UserError(errors.removeprefix("error: "))
    if code < 0:
        reason = f"was ended by {signal.Signals(-code).name}"
        return GateFailed(
            f"{what}: {reason} with {limits.megabytes} MB in the sandbox; do not use this bundle"
        )
    return GateFailed(f"{what}: failed in the sandbox ({errors or f'exit code {code}'})")
