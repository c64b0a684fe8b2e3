"""What a task tells the client. Files stay where the worker wrote them; only this travels."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec


class Done(msgspec.Struct, frozen=True):
    """An input that has been predicted; a line of the journal."""

    input: str
    """Name of its file."""
    stamp: str
    """What identifies its content."""
    name: str
    """Beginning of the names of its results."""
    files: dict[str, int]
    """Names of the results in the output folder, and their bytes."""


class Outcome(msgspec.Struct, frozen=True):
    """The end of a task: done, or why not."""

    done: Done | None = None
    """None of a part of an input."""
    error: str | None = None
    """Why this input could not be predicted; others may."""
    refusal: str | None = None
    """Why the whole run must end: the worker is not fit, or cannot write."""
    numbers: str = ""
    """See `deploy.pinned.Opened`."""
    warnings: tuple[str, ...] = ()


_told = threading.local()


@contextmanager
def warnings_of_task() -> Iterator[list[str]]:
    """Collect the warnings that this thread gives in the block.

    `warnings.catch_warnings` would change the filters of all threads of the process.
    """
    if warnings.showwarning is not _collect:
        global _before
        _before, warnings.showwarning = warnings.showwarning, _collect
    _told.texts = found = []
    try:
        yield found
    finally:
        del _told.texts


_before = warnings.showwarning


def _collect(message, category, filename, lineno, file=None, line=None) -> None:  # noqa: ANN001
    texts = getattr(_told, "texts", None)
    if texts is None:
        _before(message, category, filename, lineno, file, line)
    else:
        texts.append(str(message))
