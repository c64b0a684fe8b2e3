"""The `edgedistill` command: training here, device commands in `deploy.cli`.

With the base install only the device commands work; the others say what to install.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import NoReturn

from deploy import cli as device
from deploy.errors import UserError, exit_with_one_line

USAGE = """\
usage: edgedistill COMMAND …

training
  run PRESET [--field value …]   train a teacher, distil a student, export and prove it
  presets                        list the presets
  inspect PRESET [--field value …]
                                 statistics of the data that a run would have: tables, CSV, plots
  tiles SRC DST [--size 256]     cut large images and their masks into tiles to train on
  students [--size N]            list the students with parameters and multiply-accumulates
  losses                         list the losses, of labels and of a teacher, with their options
  compare RUN_OR_BUNDLE…         compare models on labeled images: tables, plots, the worst images
for a device
  build BUNDLE                   quantize and compile a bundle, and prove the result
  threshold BUNDLE               choose the best threshold of two classes on val, and keep it in the bundle
  lint BUNDLE|FILE               predict_int8_coverage what compilers will make of a bundle or an ONNX file
on the device
  predict BUNDLE IMAGE|FOLDER    segment an image, or every image of a folder
  predict-raster BUNDLE IN OUT   segment a GeoTIFF of any size
  info BUNDLE                    show what a bundle holds
  verify BUNDLE                  check a bundle's files, and its golden outputs on this device

COMMAND --help tells more."""


def entry() -> NoReturn:
    """The console script."""
    exit_with_one_line(lambda: main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run `edgedistill argv…` and return its exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if argv else 2
    command, *rest = argv
    training: dict[str, Callable[[Sequence[str]], int]] = {
        "run": _run,
        "presets": _presets,
        "inspect": _inspect,
        "tiles": _tiles,
        "students": _students,
        "losses": _losses,
        "compare": _compare,
    }
    if command not in training:
        return device.main(list(argv))
    return training[command](rest)


def _run(argv: Sequence[str]) -> int:
    _require_training("run")
    from distill import run

    return run.main(argv)


def _inspect(argv: Sequence[str]) -> int:
    _require_training("inspect")
    from distill.inspect_data import command as inspect_data

    return inspect_data.main(argv)


def _tiles(argv: Sequence[str]) -> int:
    _require_training("tiles")
    from distill.tiles import command as tiles

    return tiles.main(argv)


def _presets(_: Sequence[str]) -> int:
    from distill.run import preset_lines

    print(*preset_lines(), sep="\n")
    return 0


def _students(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="edgedistill students")
    parser.add_argument(
        "--size", type=int, default=304, help="side of the square input in pixels (default 304)"
    )
    parser.add_argument("--channels", type=int, default=3, help="channels of the image (default 3)")
    parser.add_argument("--classes", type=int, default=11, help="classes (default 11)")
    parser.add_argument("names", nargs="*", help="more networks, such as pspnet/efficientnet_lite0")
    options = parser.parse_args(argv)
    _require_training("students")
    from student.zoo import student_lines

    size = (options.size, options.size)
    print(*student_lines(options.names, options.channels, options.classes, size), sep="\n")
    return 0


def _losses(_: Sequence[str]) -> int:
    _require_training("losses")
    from distill.losses.registry import loss_lines

    print(*loss_lines(), sep="\n")
    return 0


def _compare(argv: Sequence[str]) -> int:
    from distill.compare import command as compare

    return compare.main(argv)


def _require_training(command: str) -> None:
    if find_spec("torch") is None or find_spec("timm") is None:
        raise UserError(f"{command} needs the training packages: pip install 'edgedistill[train]'")
