"""Completion of commands, options and values in bash, zsh and fish, by argcomplete.

    eval "$(edgedistill completion bash)"        # in ~/.bashrc; zsh likewise in ~/.zshrc
    edgedistill completion fish > ~/.config/fish/completions/edgedistill.fish

The shell runs `edgedistill` itself with an environment variable of argcomplete. Then only the parser of the command
that is being typed is built, and nothing is run.
"""

import argparse
import dataclasses
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Literal, get_args, get_origin
from unittest.mock import patch

from deploy.errors import UserError
from deploy.verbosity import OPTIONS
from distill import cli
from distill.config import RunConfig
from distill.pretraining.config import PretrainConfig
from distill.tasks.registry import PRESETS

CONFIGURED = {"run": RunConfig, "inspect": RunConfig, "pretrain": PretrainConfig}
"""Commands whose options are the fields of a configuration."""


class _Parsing(Exception):
    """Raised where a command would read its arguments."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def complete(**options: Any) -> None:
    """Answer the shell: write the completions of what is typed, and exit.

    Args:
        options: further ones of `argcomplete.autocomplete`.
    """
    import argcomplete  # optional dependency: its code in the shell is what calls this

    words = os.environ.get("COMP_LINE", "").split()
    parser = main_parser(words[1] if len(words) > 1 else None)
    argcomplete.autocomplete(parser, always_complete_options="long", **options)


def main_parser(command: str | None = None) -> argparse.ArgumentParser:
    """A parser of all commands, with the options of the one that is typed."""
    parser = argparse.ArgumentParser(prog="edgedistill")
    parser.add_argument("--version", action="store_true")
    commands = parser.add_subparsers()
    for name in cli.command_names():
        options = parser_of(name) if name == command else None
        parents = [] if options is None else [options]
        one = commands.add_parser(name, parents=parents, conflict_handler="resolve")
        for level in OPTIONS:
            one.add_argument(level, action="store_true")
    return parser


def parser_of(command: str) -> argparse.ArgumentParser | None:
    """The parser of a command: it is called, up to where it would read its arguments."""
    if command in CONFIGURED:
        return _parser_of_fields(command)

    def parse(parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        raise _Parsing(parser)

    with patch.object(argparse.ArgumentParser, "parse_args", parse), suppress(UserError, SystemExit):
        try:
            cli.main([command, "-"])
        except _Parsing as parsing:
            return _of_command(parsing.parser, command)
    return None


def _of_command(parser: argparse.ArgumentParser, command: str) -> argparse.ArgumentParser:
    """The parser itself, or that of the command where it is one of several commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and command in action.choices:
            return action.choices[command]
    return parser


def _parser_of_fields(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    if command == "pretrain":
        parser.add_argument("folders", nargs="+")
    else:
        parser.add_argument("preset", choices=tuple(PRESETS))
    for name, kind in _fields(CONFIGURED[command]):
        flag = name.replace("_", "-")
        if kind is bool:
            head, dot, last = flag.rpartition(".")
            parser.add_argument(f"--{flag}", f"--{head}{dot}no-{last}", action="store_true")
        else:
            choices = get_args(kind) if get_origin(kind) is Literal else None
            parser.add_argument(f"--{flag}", choices=choices)
    return parser


def _fields(kind: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and type of each field."""
    for field in dataclasses.fields(kind):
        name = f"{prefix}{field.name}"
        if isinstance(field.type, type) and dataclasses.is_dataclass(field.type):
            yield from _fields(field.type, f"{name}.")
        else:
            yield name, field.type
