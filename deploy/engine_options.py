"""The command-line options that choose an engine, for every command that opens one."""

import argparse

from deploy.backends.engine import BACKENDS, PRECISIONS


def add_engine_options(command: argparse.ArgumentParser) -> None:
    """Add `--backend` and `--precision`, as `deploy.load` takes them."""
    command.add_argument(
        "--backend", default="auto", metavar="NAME", help=f"{', '.join(BACKENDS)} (auto: the fastest here)"
    )
    command.add_argument(
        "--precision",
        default="auto",
        metavar="NAME",
        help=f"{', '.join(PRECISIONS)} (auto: the fastest that passed; of a named backend the lowest there is)",
    )
