"""Train a teacher, distil a student, export and prove it: `python distill/run.py PRESET [--field value …]`."""

import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository root, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import dataclasses
from collections.abc import Sequence

from deploy.errors import UserError, did_you_mean, exit_with_one_line
from distill.config import RunConfig
from distill.presets import PRESETS

USAGE = "usage: python distill/run.py PRESET [--field value …]   (PRESET --help lists the fields)"


def main(argv: Sequence[str]) -> int:
    """Run the preset `argv[0]` with the fields that follow changed."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, "", "presets:", *preset_lines(), sep="\n")
        return 0 if argv else 2
    config = parse(argv)
    from distill.pipeline.pipeline import run  # torch loads only when there is something to do

    run(config)
    return 0


def parse(argv: Sequence[str], command: str = "distill/run.py") -> RunConfig:
    """The configuration of a command line `PRESET [--field value …]`; `command` is named in its help.

    Raises:
        UserError: unknown preset or field. tyro itself exits with code 2 on a value it cannot read.
    """
    import tyro

    name, *fields = argv
    if name not in PRESETS:
        raise UserError(
            f"unknown preset {name!r}{did_you_mean(name, PRESETS)}; presets: {', '.join(PRESETS)}"
        )
    known = list(field_names(RunConfig))
    for field in fields:
        asked = field.removeprefix("--").partition("=")[0].replace("_", "-")
        if (
            field.startswith("--")
            and asked != "help"
            and _without_no(asked) not in known
            and asked not in known
        ):
            raise UserError(f"unknown field --{asked}{did_you_mean(asked, known)}; {name} --help lists all")
    make = PRESETS[name]
    prog = f"{command} {name}"
    return tyro.cli(RunConfig, default=make(), args=fields, prog=prog, description=make.__doc__)


def field_names(kind: type, prefix: str = "") -> list[str]:
    """The dotted command-line names of a configuration's fields."""
    names: list[str] = []
    for field in dataclasses.fields(kind):
        name = f"{prefix}{field.name.replace('_', '-')}"
        nested = isinstance(field.type, type) and dataclasses.is_dataclass(field.type)
        names += field_names(field.type, f"{name}.") if nested else [name]  # pyright: ignore[reportArgumentType]
    return names


def preset_lines() -> list[str]:
    """One line a preset: its name and what it is for."""
    return [f"  {name:<12}{(make.__doc__ or '').splitlines()[0]}" for name, make in PRESETS.items()]


def _without_no(name: str) -> str:
    """`data.no-cache` is the off switch of `data.cache`."""
    head, dot, last = name.rpartition(".")
    return f"{head}{dot}{last.removeprefix('no-')}"


if __name__ == "__main__":
    exit_with_one_line(lambda: main(sys.argv[1:]))
