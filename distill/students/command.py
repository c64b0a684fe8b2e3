"""`edgedistill students`: list the students, time them on this machine, or export them to be timed on a device."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from deploy.command_parser import CommandParser
from deploy.errors import UserError, warnings_as_lines
from deploy.files.json_output import add_json, print_json

DEFAULTS = {"size": 304, "channels": 3, "classes": 11}
MINIMA = {"size": 8, "channels": 1, "classes": 1}
MAX_CLASSES = 255


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line; argparse itself exits with code 2 on what it cannot read.

    Raises:
        UserError: a value is out of range, or two options do not go together.
    """
    options = _parser().parse_args(argv)
    if options.run is not None and "--json" in options.run:  # what follows --run is the run's, but not this
        options.json, options.run = True, [word for word in options.run if word != "--json"]
    _check_together(options)
    for name, default in DEFAULTS.items():
        if getattr(options, name) is None:
            setattr(options, name, default)
    for name, least in MINIMA.items():
        if getattr(options, name) < least:
            raise UserError(f"--{name} {getattr(options, name)}: must be at least {least}")
    if options.classes > MAX_CLASSES:
        raise UserError(f"--classes {options.classes}: labels are bytes; give at most {MAX_CLASSES}")
    if options.ms and min(options.ms) < MINIMA["size"]:
        raise UserError(f"--ms {options.ms[0]}x{options.ms[1]}: sides must be at least {MINIMA['size']}")
    return options


def _check_together(options: argparse.Namespace) -> None:
    """Raise `UserError` if an option would be ignored beside the others."""
    sizes = [name for name in DEFAULTS if getattr(options, name) is not None]
    if options.run is not None and (options.names or options.ms or sizes):
        raise UserError(
            "--run: the run says which candidates and which size; leave out names, --ms, --size, --channels and"
            " --classes"
        )
    if options.ms and "size" in sizes:
        raise UserError(f"--size {options.size}: --ms says the size, too; leave one of them out")
    if options.export is None and (options.ms or options.run is not None):
        return
    nothing = "nothing is timed with --export" if options.export else "nothing is timed without --ms or --run"
    if options.output:
        remedy = "leave one of them out" if options.export else "give --ms HxW"
        raise UserError(f"-o {options.output}: {nothing}; {remedy}")
    # --export writes fp32 in any case, and a run says itself whether there is INT8
    if options.precision and not (options.export and options.run is None and options.precision == "fp32"):
        raise UserError(f"--precision {options.precision}: {nothing}; leave it out")


@warnings_as_lines()
def run(options: argparse.Namespace) -> int:
    """Do what the command line asks for, and return the exit code.

    Raises:
        UserError: a network cannot be built, exported or run.
    """
    if options.ms is None and options.export is None and options.run is None:
        from student.zoo import student_lines  # start-up time: torch

        size = (options.size, options.size)
        lines = student_lines(options.names, options.channels, options.classes, size)
        if options.json:
            print_json([_record(line) for line in list(lines)[1:]])
        else:
            print(*lines, sep="\n")
        return 0
    from distill.students import measured  # start-up time: torch

    size = options.ms or (options.size, options.size)
    int8 = options.precision != "fp32"
    networks, target = (
        measured.of_names(options.names, size, options.channels, options.classes, int8)
        if options.run is None
        else measured.of_run(options.run)
    )
    if options.export is not None:
        measured.export(options.export, networks, target, options.json)
    else:
        measured.time_here(networks, target, options.precision, options.output, options.json)
    return 0


def _record(line: str) -> dict[str, object]:
    """A line of the list as JSON: with its numbers, or with the reason why there are none."""
    name, *cells = line.split()
    try:
        parameters, macs = map(float, cells)
    except ValueError:
        return {"name": name, "reason": " ".join(cells)}
    return {"name": name, "parameters M": parameters, "GMAC": macs}


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="edgedistill students",
        description="List the students with parameters and multiply-accumulates; with --ms time them untrained.",
    )
    add = parser.add_argument
    add(
        "names",
        nargs="*",
        metavar="NAME",
        help="more networks, such as pspnet/efficientnet_lite0; with --ms or --export these only, also families and"
        " options, such as edge:detail=True",
    )
    add("--size", type=int, help=f"side of a square input (default {DEFAULTS['size']})")
    add("--ms", type=_size, metavar="HxW", help="time them on this machine, on inputs of this size")
    add(
        "--channels",
        type=int,
        help=f"channels of the image: three uint8, others float32 (default {DEFAULTS['channels']})",
    )
    add("--classes", type=int, help=f"classes (default {DEFAULTS['classes']})")
    add("--precision", choices=("fp32", "int8"), help="time this precision only")
    add("-o", "--output", type=Path, metavar="FILE", help="write what was timed, for --student.on of a run")
    add("--export", type=Path, metavar="FOLDER", help="write them, for `edgedistill measure` on a device")
    add(
        "--run",
        nargs=argparse.REMAINDER,
        metavar="PRESET",
        help="those among which this run would choose: PRESET [--field value …]; comes last",
    )
    add_json(parser)
    return parser


def _size(text: str) -> tuple[int, int]:
    """Height and width of "320x320", "320×320" or "320"."""
    height, _, width = text.lower().replace("×", "x").partition("x")
    if not (height.isdecimal() and (width or height).isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write it as 320x320, height first")
    return int(height), int(width or height)
