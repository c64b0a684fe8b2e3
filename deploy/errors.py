"""Expected failures and warnings, and the one place that turns them into a line on stderr."""

import errno
import inspect
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from deploy.signals import Stopped, stopping_by_exception
from deploy.terminal import prepare_streams
from deploy.text import shown
from deploy.verbosity import is_verbose


class UserError(Exception):
    """An error the user can fix. The message is one line: what is wrong, where, and the remedy."""

    exit_code = 2


class GateFailed(UserError):
    """A quality check exceeded its budget; everything else worked."""

    exit_code = 1


def did_you_mean(word: str, known: Collection[str]) -> str:
    """Return " (did you mean x?)" to append to a message, with the most similar known word; "" if none is similar."""
    import difflib  # start-up time: needed for wrong words only

    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def exit_with_one_line(main: Callable[[], int | None]) -> NoReturn:
    """Run `main` and exit with its code; expected failures become one line on stderr instead of a traceback.

    Exit codes: 0 or what `main` returns, 1 for a failed gate, 2 for a user's mistake or a file that the system
    refuses to read or write, 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP. Work never ends because nobody reads what
    it prints: where all went well but the reader of the output has exited, the code is 141.
    """
    prepare_streams()
    try:
        with stopping_by_exception():
            code = main() or 0
    except UserError as error:
        if is_verbose():
            traceback.print_exc()
        _say(str(error))
        code = error.exit_code
    except SystemExit as error:  # of a parser that has printed its help, or what is wrong
        if isinstance(error.code, str):
            raise
        code = error.code or 0
    except Stopped as stopped:
        print(f"stopped by {stopped}", file=sys.stderr)
        code = stopped.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except MemoryError:
        _say("not enough memory; close other programs, or give smaller images or batches")
        code = 2
    except OSError as error:
        reason = _reason(error)
        if reason is None:
            raise
        _say(reason)
        code = 2
    sys.stdout.flush()
    sys.exit(code or _code_of_output())


def _reason(error: OSError) -> str | None:
    """What the system refuses, in one line; None where that cannot be said."""
    if error.errno in DISK_FULL:
        return f"{error.filename or 'a file'}: the disk is full; free some space"
    if error.filename is not None:
        path = Path(os.fsdecode(error.filename))
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            for part in (path, *path.parents):
                if part.is_file():
                    return f"{part}: is a file, but a folder is needed there; give another name"
        return f"{path}: {error.strerror}"
    if isinstance(error, FileNotFoundError) and not _has_working_directory():
        return "the working directory has been removed; change to another one"
    return None


def _has_working_directory() -> bool:
    try:
        os.getcwd()  # noqa: PTH109 - Path.cwd is the same
    except FileNotFoundError:
        return False
    return True


def _code_of_output() -> int:
    """The exit code of a command that went well, after what it printed."""
    lost = getattr(sys.stdout, "lost", None)
    if lost is None:
        return 0
    if isinstance(lost, BrokenPipeError):
        return 141
    _say(
        f"the output: {'the disk is full' if lost.errno in DISK_FULL else lost.strerror}; the work itself is done"
    )
    return 2


def _say(text: str) -> None:
    print(f"error: {shown(text)}", file=sys.stderr)


def warn(message: str) -> None:
    """Emit a `RuntimeWarning` that names the line from which this package was called."""
    level, frame = 1, inspect.currentframe()
    while frame and frame.f_back and Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, RuntimeWarning, stacklevel=level)


def warn_once(message: str) -> None:
    """`warn`, but the same message only once in this process: a program that loads many bundles hears it once."""
    if message not in _WARNED:
        _WARNED.add(message)
        warn(message)


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print each warning of the block, or of the decorated function, as one line on stderr."""
    with warnings.catch_warnings():
        warnings.showwarning = _print_warning
        yield


def _print_warning(message: Warning | str, *_: object) -> None:
    print(f"warning: {shown(str(message))}", file=sys.stderr)


DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""`OSError.errno` values of a full disk or an exhausted quota."""

_WARNED: set[str] = set()

PACKAGE = Path(__file__).parent
