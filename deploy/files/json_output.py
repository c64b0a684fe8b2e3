"""Results of commands as JSON, for programs: the option `--json` and what it prints."""

import argparse

from deploy.files.atomic import json_text


def add_json(parser: argparse._ActionsContainer) -> None:
    """Add the option `--json`."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON, nothing else")


def print_json(result: object) -> None:
    """Print a result, of the types that `deploy.files.atomic.write_json` takes, on stdout.

    Raises:
        ValueError: it contains NaN or an infinity, which JSON cannot express.
    """
    print(json_text(result), end="")
