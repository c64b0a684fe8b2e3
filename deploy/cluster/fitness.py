"""Whether a worker may take part: the same code, the same bundle, the same folders as the client."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from deploy.bundle.manifest import ClassInfo
from deploy.errors import UserError, warn
from deploy.look import Look
from deploy.pinned import Pin, check_pin
from deploy.text import shown

COMPUTING = ("numpy", "pillow", "onnxruntime", "openvino", "rasterio")
"""Packages whose versions may change pixels or last digits."""


class Job(msgspec.Struct, frozen=True):
    """What all tasks of a run share."""

    pin: Pin
    sample: str
    """An input file: a worker that does not see it would see none."""
    out: str
    """Folder of the results."""
    formats: tuple[str, ...] = ()
    """In which the results of images are written (`deploy.tasks.task.Task.formats`)."""
    look: Look = Look()
    classes: tuple[ClassInfo, ...] = ()
    """With the colors to draw in."""
    work: str = ""
    """Folder of this run, with a random name, inside the output: a worker that sees it shares the output."""


class Answer(msgspec.Struct, frozen=True):
    """What a worker says of itself."""

    refusal: str | None
    """Why it may not take part, beginning with a verb; None: it may."""
    packages: dict[str, str]
    """Versions of `COMPUTING`, as far as they are installed."""


def answer(job: Job) -> Answer:
    """Whether this process may take part in a job, and which packages it computes with."""
    return Answer(refusal(job), packages())


def refusal(job: Job) -> str | None:
    """Why this process may not take part in a job; None: it may."""
    try:
        check_pin(job.pin)
    except UserError as error:
        return f"is not fit: {error}"
    for path, what in ((job.sample, "INPUT"), (job.work, "OUT")):
        if not Path(path).exists():
            shared = path if what == "INPUT" else job.out
            return f"does not see {what}, {shared}; give a folder that all machines share under this name"
    return None


@cache
def packages() -> dict[str, str]:
    """Versions of `COMPUTING`, as far as they are installed."""
    found = {name: _installed(name) for name in COMPUTING}
    return {name: text for name, text in found.items() if text is not None}


def check_workers(client: Any, job: Job) -> None:
    """Ask all workers whether they may take part; warn of other versions of packages that compute.

    Workers that come later are asked by their first task.

    Raises:
        UserError: one may not; the message names it and the remedy.
    """
    answers = client.run(answer, job, on_error="return")
    for address, one in answers.items():
        if not isinstance(one, Answer):
            raise UserError(f"worker {address} {_failure(one)}")
        if one.refusal is not None:
            raise UserError(f"worker {address} {one.refusal}")
    for name, here in packages().items():
        others = {text for one in answers.values() if (text := one.packages.get(name, "none")) != here}
        if others:
            warn(
                f"workers have {name} {', '.join(sorted(others))}, the client has {here}: results may differ in details"
            )


def _failure(error: object) -> str:
    """Why a worker could not even be asked."""
    text = shown((str(error).splitlines() or [""])[0])
    if isinstance(
        error, ImportError | AttributeError
    ):  # it lacks the package or, in an older version, this function
        return f"has no edgedistill with predict-many ({text}); install the client's version on it"
    return f"cannot be asked ({type(error).__name__}: {text})"


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
