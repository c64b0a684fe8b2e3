"""The commands that pages of docs/ show exist with these options, and reference pages leave no command out."""

import re
import shlex
from pathlib import Path

import pytest

import edgedistill
from deploy.errors import UserError
from distill.cli import DEVICE_COMMANDS, USAGE
from distill.run import parse
from tests.conftest import ROOT

DOCS = ROOT / "docs"
TASKS = [DOCS / "tutorial.md", DOCS / "faq.md", *sorted(DOCS.glob("howto-*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TWO_SCREENS = 100
"""Lines."""
COMMANDS = {name for name in re.findall(r"^  ([a-z][a-z-]*) ", USAGE, re.MULTILINE) if name != "run"}
IN_HELP = re.compile(r"--[a-z][\w-]+")


def commands(page: Path) -> list[list[str]]:
    """The words of each `edgedistill …` of a page, in code blocks and in the text, without comments."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^(?:    +|```sh\n)?(?:~/edge/bin/)?(edgedistill [^\n]*)$", text, re.MULTILINE)
    return [
        shlex.split(line, comments=True) for line in [*blocks, *re.findall(r"`(edgedistill [^`]+)`", text)]
    ]


@pytest.mark.parametrize("page", TASKS, ids=lambda page: page.name)
def test_commands_have_these_names_and_options(page: Path, capsys: pytest.CaptureFixture[str]):
    assert commands(page)
    for _, name, *rest in commands(page):
        assert name in COMMANDS | {"run"}, name
        if name == "run" and rest[0].islower():
            parse(rest)
        if name in DEVICE_COMMANDS:
            asked = {word.partition("=")[0] for word in rest if word.startswith("--")}
            assert asked - set(IN_HELP.findall(help_of(name, capsys))) == set(), name


def help_of(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a device command prints for `--help`."""
    from distill import cli

    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    return capsys.readouterr().out


def test_the_check_of_options_can_fail():
    with pytest.raises(UserError, match="unknown field"):
        parse(["folder-cpu", "--data.nothing", "1"])


def test_reference_has_every_command():
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"(?:command-help|printed):: ([a-z-]+)", text))
    assert COMMANDS | {"run"} <= listed


def test_reference_has_the_python_interface():
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    assert [
        name for name in edgedistill.__all__ if name != "__version__" and f"edgedistill.{name}" not in text
    ] == []


def test_readme_fits_two_screens_and_begins_with_pictures_and_commands():
    lines = README.splitlines()
    assert len(lines) <= TWO_SCREENS
    head = lines[:20]
    assert any(line.startswith("![") for line in head)
    assert any(line.strip().startswith("make demo") for line in head)


def test_pictures_are_small():
    assert [path.name for path in DOCS.glob("*.png") if path.stat().st_size > 150_000] == []
