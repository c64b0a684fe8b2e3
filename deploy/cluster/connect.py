"""The Dask cluster that predicts: an existing one, or processes of this machine."""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from deploy import host
from deploy.errors import PACKAGE, UserError
from deploy.heartbeat import working

SECONDS = 60.0
"""How long to wait for a scheduler's file, for the scheduler, and then for its first worker."""


def import_distributed() -> Any:
    """Import dask.distributed, an optional dependency.

    Raises:
        UserError: it cannot be imported.
    """
    try:
        import distributed
    except (ImportError, OSError) as error:
        raise UserError(f"predict-many needs Dask ({error}): pip install 'edgedistill[dask]'") from error
    return distributed


@contextmanager
def connected(scheduler: str | None, workers: int | None, seconds: float = SECONDS) -> Iterator[Any]:
    """Connect to a cluster with at least one worker.

    Args:
        scheduler: address of an existing scheduler, such as "tcp://10.0.0.1:8786", or the file that a scheduler wrote
            (`dask scheduler --scheduler-file`); None: start processes on this machine, and end them afterwards.
        workers: number of these processes, one thread each; None: one for each physical core.
        seconds: how long to wait for the scheduler's file, for the scheduler, and then for its first worker.

    Yields:
        A `distributed.Client`.

    Raises:
        UserError: Dask is not installed, the scheduler cannot be reached, or it has no worker.
    """
    distributed = import_distributed()
    if scheduler is None:
        with _local(distributed, workers or host.physical_cores()) as client:
            yield client
        return
    with working(f"connecting to {scheduler}"):
        client = _client(distributed, scheduler, seconds)
    try:
        with working(f"waiting for a worker of {scheduler}"):
            _wait_for_worker(client, scheduler, seconds)
        yield client
    finally:
        with suppress(Exception):  # the scheduler may be gone
            client.close(timeout=5)


@contextmanager
def _local(distributed: Any, workers: int) -> Iterator[Any]:
    """Processes of this machine, which only this program can talk to: others have neither key nor certificate."""
    from dask import config  # optional dependency, as distributed is

    # the processes import this package from where it is, whatever the working directory holds by its name
    sys.path.insert(0, str(PACKAGE.parent))
    try:
        with (
            config.set(LOCAL),
            distributed.LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                security=distributed.Security.temporary(),
                dashboard_address=None,
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                silence_logs=logging.CRITICAL,
            ) as cluster,
            distributed.Client(cluster, set_as_default=False) as client,
        ):
            yield client
    finally:
        sys.path.remove(str(PACKAGE.parent))


LOCAL = {
    **{f"distributed.{role}.http.routes": [] for role in ("scheduler", "worker")},
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
}
"""Settings of Dask for processes of this machine. Its web pages are not encrypted, so there are none; what it samples
for them, up to a hundred times a second, costs each process some percent of a core."""


def _client(distributed: Any, scheduler: str, seconds: float) -> Any:
    address = _address(scheduler, seconds)
    try:
        return distributed.Client(address, timeout=seconds, set_as_default=False)
    except (
        OSError,
        ValueError,
        TypeError,
        ImportError,
    ) as error:  # ImportError: a protocol of another package
        raise UserError(
            f"--scheduler {scheduler}: cannot be reached within {seconds:g} s ({_reason(error)}); is it running, and "
            "is this its own address, not that of its dashboard?"
        ) from error


def _wait_for_worker(client: Any, scheduler: str, seconds: float) -> None:
    try:
        client.wait_for_workers(1, timeout=seconds)
    except (TimeoutError, asyncio.TimeoutError) as error:  # the same from Python 3.11 on
        raise UserError(
            f"--scheduler {scheduler}: has no worker after {seconds:g} s; start some (dask worker {scheduler}), or "
            "wait longer with --timeout"
        ) from error


def _address(scheduler: str, seconds: float) -> str:
    """The address of a scheduler, also from its file, which a scheduler that has just been started is yet to write."""
    path = Path(scheduler)
    if not (path.suffix == ".json" or path.is_file()):
        return scheduler
    began = time.monotonic()
    while True:
        patience = 0.0
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["address"])
        except OSError as error:
            refusal = f"cannot be read ({error.strerror})"
            if isinstance(error, FileNotFoundError) and path.parent.is_dir():
                refusal, patience = f"no scheduler wrote it within {seconds:g} s", seconds
        except (ValueError, KeyError, TypeError):
            refusal = f"is not the file of a scheduler (dask scheduler --scheduler-file {scheduler})"
            patience = min(seconds, WRITING)  # it may be half-written
        if time.monotonic() - began >= patience:
            raise UserError(f"--scheduler {scheduler}: {refusal}")
        time.sleep(POLL)


WRITING, POLL = 2.0, 0.1
"""Seconds that writing the file may take, and between two looks at it."""


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
