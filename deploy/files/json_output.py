"""Results of commands as JSON, for programs: the option `--json` and what it prints."""

import argparse
import contextlib
import sys
from collections.abc import Iterator

from deploy.files.atomic import json_text


def add_json(parser: argparse._ActionsContainer) -> None:
    """Add the option `--json`."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON, nothing else")


@contextlib.contextmanager
def words_to_stderr(asked: bool) -> Iterator[None]:
    """Print what the block prints on stderr, if asked, so that stdout has nothing but JSON."""
    with contextlib.redirect_stdout(sys.stderr) if asked else contextlib.nullcontext():
        yield


def print_result(line: str, result: object, as_json: bool) -> None:
    """Print what a command has done: a line for people, or a result as `print_json` takes it."""
    if as_json:
        print_json(result)
    else:
        print(line)


def print_json(result: object) -> None:
    """Print a result, of the types that `deploy.files.atomic.write_json` takes, on stdout.

    Raises:
        ValueError: it contains NaN or an infinity, which JSON cannot express.
    """
    # other characters a stream may escape in its own way, which is no JSON
    text = json_text(result, ascii_only=True)
    print(text.replace("\x7f", r"\u007f"), end="")
