"""How much commands say of what goes on: `--quiet` and `--verbose`, wherever they stand on a command line.

Results are printed on stdout at every level, and so are errors and warnings on stderr. What `--quiet` leaves out is
progress; `--verbose` adds how long each stage took, and the traceback of an error.
"""

import sys
from collections.abc import Sequence

QUIET, USUAL, VERBOSE = 0, 1, 2
OPTIONS = {"--quiet": QUIET, "--verbose": VERBOSE}
_level = [USUAL]


def take_options(argv: Sequence[str]) -> list[str]:
    """Set the level by the options on a command line, and return the other words; the last option counts."""
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    found = [OPTIONS[word] for word in words[:end] if word in OPTIONS]
    _level[0] = found[-1] if found else USUAL
    return [word for word in words[:end] if word not in OPTIONS] + words[end:]


def is_quiet() -> bool:
    """Whether only results, warnings and errors are printed."""
    return _level[0] == QUIET


def is_verbose() -> bool:
    """Whether stages and tracebacks are printed, too."""
    return _level[0] == VERBOSE


def note(line: str) -> None:
    """Print a line about what goes on to stderr, unless quiet."""
    if not is_quiet():
        print(line, file=sys.stderr, flush=True)
