"""What the processes of a run must have in common before they train together, on one machine or on several."""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from accelerate import Accelerator

from deploy.errors import UserError
from deploy.files.atomic import named_write_errors, sibling
from distill.data.fingerprint import Fingerprint, differences, fingerprint
from distill.data.splits import Splits
from distill.run_folder import Configuration, settings
from distill.training.distributed import by_main, from_all, is_on_main_machine

VISIBLE_WITHIN = 20.0
"""Seconds within which a new file must be seen from another machine."""


OWN_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
"""The variable that gives torchrun's processes a new store of addresses at each start."""


def check_restarts(resume: bool) -> None:
    """Raise `UserError` if torchrun would restart this run, and it would not continue or not find its processes.

    By default torchrun keeps the store of the processes' addresses when it starts them again: a process that
    reads before the others have written connects to one that is gone, and each failure costs a restart.
    """
    if not int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")):
        return
    if not resume:
        raise UserError(
            "a run that torchrun restarts (--max-restarts) must continue where it was: add --resume"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and os.environ.get(OWN_STORE) != "1":
        raise UserError(
            f"restarted processes would look for each other where they were before: set {OWN_STORE}=1 where torchrun is"
            " started, or leave out --max-restarts"
        )


def check_alike(
    config: Configuration, computed: Mapping[str, object], splits: Splits, accelerator: Accelerator
) -> None:
    """Check that all processes have the same version, settings and data.

    Args:
        config: of this process.
        computed: its settings that come from the machine.
        splits: its data.
        accelerator: the processes.

    Raises:
        UserError: they do not; raised in all processes.
    """
    if accelerator.num_processes == 1:
        return
    mine = {**settings(config), **computed, "edgedistill": version("edgedistill")}
    _check_settings(mine, accelerator)
    _check_data(splits, accelerator)


def check_shared(folder: Path, accelerator: Accelerator) -> None:
    """Check that all processes see the same folder, which the main process creates if need be.

    Raises:
        UserError: one does not see a file there that the main process has written.
    """
    if accelerator.num_processes == 1:
        return
    name = by_main(lambda: _written(folder), accelerator)
    try:
        places = from_all(None if _appears(folder, name) else socket.gethostname(), accelerator)
    finally:
        if accelerator.is_main_process:
            (folder / name).unlink(missing_ok=True)
    blind = [f"process {rank} on {host}" for rank, host in enumerate(places) if host is not None]
    if blind:
        raise UserError(
            f"{folder}: is not the same folder for all processes ({', '.join(blind[:3])}); give --out on a file system"
            " that all machines share, such as NFS or Lustre"
        )


def _written(folder: Path) -> str:
    """The name of a new file in the folder, one that is removed as a leftover if this process is killed."""
    file = sibling(folder / "shared")
    with named_write_errors(folder, folder):
        folder.mkdir(parents=True, exist_ok=True)
        file.touch()
    return file.name


def _appears(folder: Path, name: str) -> bool:
    end = time.monotonic() + VISIBLE_WITHIN
    while True:
        with suppress(OSError):
            if name in os.listdir(folder):  # noqa: PTH208 - opens the folder, which network file systems look up anew
                return True
        if time.monotonic() > end:
            return False
        time.sleep(0.2)


def _check_settings(mine: Mapping[str, object], accelerator: Accelerator) -> None:
    first, *others = from_all(dict(mine), accelerator)
    for rank, other in enumerate(others, 1):
        for name in sorted({*first, *other}):
            if first.get(name) != other.get(name):
                raise UserError(
                    f"process {rank} has other settings than the main process: {name} is {other.get(name)}, there"
                    f" {first.get(name)}; start all processes with the same command, and --precision fp32 or bf16 where"
                    " machines differ"
                )


def _check_data(splits: Splits, accelerator: Accelerator) -> None:
    """Compare the data of other machines, as far as a resumed run compares them (see `distill.data.fingerprint`)."""
    elsewhere = not is_on_main_machine() and accelerator.is_local_main_process
    if not any(from_all(elsewhere, accelerator)):
        return
    looks = elsewhere or accelerator.is_main_process
    first, *others = from_all(fingerprint(splits) if looks else None, accelerator)
    assert isinstance(first, Fingerprint)
    for rank, other in enumerate(others, 1):
        changes = [] if other is None else differences(first, other)
        if changes:
            raise UserError(
                f"the data of process {rank} are not those of the main process: {'; '.join(changes)}; give all machines"
                " the same --data.root"
            )
