"""Expected failures and warnings, and the one place that turns them into a line on stderr."""

import errno
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn


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
    refuses to read or write, 130 for Ctrl-C, 141 when the reader of the output has exited.
    """
    try:
        code = main() or 0
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        # The reader of our output (`| head`) has exited. Otherwise Python reports it again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except OSError as error:
        full = error.errno in DISK_FULL
        if error.filename is None and not full:
            raise
        reason = "the disk is full; free some space" if full else error.strerror
        print(f"error: {error.filename or 'a file'}: {reason}", file=sys.stderr)
        code = 2
    sys.exit(code)


def warn(message: str) -> None:
    """Emit a `RuntimeWarning` that names the line from which this package was called."""
    level, frame = 1, inspect.currentframe()
    while frame and frame.f_back and Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, RuntimeWarning, stacklevel=level)


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print each warning of the block, or of the decorated function, as one line on stderr."""
    with warnings.catch_warnings():
        warnings.showwarning = _print_warning
        yield


def _print_warning(message: Warning | str, *_: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""`OSError.errno` values of a full disk or an exhausted quota."""

PACKAGE = Path(__file__).parent
