"""Help ends with examples, and each of them is a command line that its command takes."""

import shlex
from importlib.util import find_spec

import pytest

from deploy.cli import OWN_PARSERS
from deploy.command_parser import EXAMPLES
from distill import cli
from distill.completion import parser_of

LINES = [(command, line) for command, lines in EXAMPLES.items() for line in lines]


@pytest.mark.parametrize(("command", "line"), LINES, ids=[line for _, line in LINES])
def test_examples_can_be_parsed(command, line):
    assert command in cli.command_names()
    if find_spec("torch") is None and command not in {*OWN_PARSERS, "info", "verify"}:
        pytest.skip("a command of training")
    if line.startswith("curl"):
        return
    words = shlex.split(line.partition("$(")[2].partition(")")[0] or line, comments=True)
    start = words.index("edgedistill")
    assert words[start + 1] == command
    end = words.index(">") if ">" in words else None
    parser = parser_of(command)
    assert parser is not None
    parser.parse_args(words[start + 2 : end])


def test_help_ends_with_them(capsys):
    with pytest.raises(SystemExit):
        cli.main(["predict", "--help"])
    assert capsys.readouterr().out.splitlines()[-5:] == [
        "examples:",
        *(f"  {line}" for line in EXAMPLES["predict"]),
    ]
