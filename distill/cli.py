"""The commands of `edgedistill`: those of training here, those of a device in `deploy.cli`.

With the base install only the device commands work; the others say what to install. Each command is imported when it is
asked for (start-up time).
"""

import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec

from deploy import cli as device
from deploy.command_parser import CommandParser
from deploy.errors import UserError, did_you_mean
from deploy.files.json_output import add_json, print_json
from deploy.verbosity import take_options

USAGE = """\
usage: edgedistill COMMAND …

training
  run PRESET [--field value …]   train a teacher, distill a student, export it and verify the export
  presets                        list the presets
  pretrain FOLDER… [--field value …]
                                 pre-train a student's backbone on images without labels
  inspect PRESET [--field value …]
                                 statistics of the data that a run would use: tables, CSV, plots
  tiles SRC DST [--size 256]     cut large images and their masks into tiles to train on
  masks SRC DST --map 255=1      convert the numbers or colors of masks to class indices
  students [--size N]            list the students with parameters and multiply-accumulates
  students --ms 320x320          measure how fast they are here, or --export them to measure on a device
  losses                         list the losses against labels and against a teacher, with their options
  label BUNDLE FOLDER            write predictions as masks to correct, and which images to label first
  compare RUN_OR_BUNDLE…         compare models on labeled images: tables, plots, the worst images
  report RUN…                    a page of a run, or of several: tables, curves, classes, images to look at
  evaluate BUNDLE_OR_RUN DATA…   score a bundle on labeled images: classes, confusion, each image, the worst ones
  convert FILE OUT               make a teacher of a PSPNet published by semseg or MMSegmentation
  completion SHELL               print the code with which bash, zsh or fish completes all this
before deployment
  build BUNDLE                   quantize and compile a bundle, and verify the result
  threshold BUNDLE               choose the best threshold of two classes on val, and store it in the bundle
  lint BUNDLE|FILE               predict how compilers will handle a bundle or an ONNX file
on the device
  doctor                         what of this machine and its packages works, and how to mend the rest
  predict BUNDLE_OR_RUN SOURCE…  images, folders, patterns, stdin, a video, a camera or a stream
  predict-raster BUNDLE IN OUT   segment a GeoTIFF of any size, or a mosaic
  predict-many BUNDLE IN OUT     predict many images or rasters by several processes or machines (Dask)
  serve BUNDLE_OR_RUN            answer images over HTTP
  triton BUNDLE_OR_RUN REPO      write a model repository for the Triton inference server
  card BUNDLE_OR_RUN             write a model card
  info BUNDLE                    show what a bundle holds
  measure FOLDER|BUNDLE…         measure exported candidates and bundles, for --student.max-ms
  verify BUNDLE                  check a bundle's files, its golden outputs on this device, and its signature
  keygen KEY.pem                 make a key to sign bundles with
  sign BUNDLE --key KEY.pem      sign a bundle, for deploy.load(…, trusted_keys=[…])
  trust BUNDLE|ENGINE            trust engines that were built elsewhere: they are native code
  sbom BUNDLE                    list what a bundle consists of, as CycloneDX JSON

with every command
  --quiet                        print only results, warnings and errors
  --verbose                      also how long each stage took, and the traceback of an error

edgedistill COMMAND --help shows the options of a command, edgedistill --version the version.
examples: edgedistill run quick   edgedistill predict runs/quick photos   edgedistill doctor"""

DEVICE_COMMANDS = (
    *("build", "doctor", "threshold", "lint", "predict", "predict-raster", "predict-many", "info"),
    *("measure", "verify"),
    *("serve", "triton", "card"),
    *("keygen", "sign", "trust", "sbom"),
)
"""Those of `deploy.cli`."""


SYNONYMS = {
    **dict.fromkeys(("train", "distill", "fit"), "run"),
    **dict.fromkeys(("export", "compile", "quantize", "convert-trt", "engine"), "build"),
    **dict.fromkeys(("val", "validate", "test", "eval", "score"), "evaluate"),
    **dict.fromkeys(("detect", "infer", "inference", "segment"), "predict"),
    **dict.fromkeys(("benchmark", "bench", "latency"), "measure"),
    **dict.fromkeys(("checks", "env", "environment"), "doctor"),
}
"""What other tools call these commands."""


def main(argv: Sequence[str]) -> int:
    """Run `edgedistill argv…` and return its exit code."""
    given, argv = argv, take_options(argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if argv else 2
    command, *rest = argv
    if command in TRAINING:
        return _with_packages(command, rest)
    if command in DEVICE_COMMANDS:
        return device.main(given)  # which takes the options again
    hint = (
        f" (did you mean {SYNONYMS[command]}?)"
        if command in SYNONYMS
        else did_you_mean(command, command_names())
    )
    raise UserError(f"unknown command {command!r}{hint}; `edgedistill --help` lists all")


def command_names() -> list[str]:
    """All commands."""
    return [*TRAINING, *DEVICE_COMMANDS]


def _with_packages(command: str, argv: Sequence[str]) -> int:
    """Run a command of `TRAINING`. Some need packages of training only with some arguments, such as a preset."""
    try:
        return TRAINING[command](argv)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or find_spec(package) is not None:
            raise
        _require_training(command)
        raise UserError(f"{command} needs {package}: pip install 'edgedistill[train]'") from error


def _run(argv: Sequence[str]) -> int:
    _require_training("run")
    from distill import run

    return run.main(argv)


def _pretrain(argv: Sequence[str]) -> int:
    _require_training("pretrain")
    from distill.pretraining import command as pretraining

    return pretraining.main(argv)


def _inspect(argv: Sequence[str]) -> int:
    _require_training("inspect")
    from distill.inspect_data import command as inspect_data

    return inspect_data.main(argv)


def _tiles(argv: Sequence[str]) -> int:
    _require_training("tiles")
    from distill.tiles import command as tiles

    return tiles.main(argv)


def _masks(argv: Sequence[str]) -> int:
    _require_training("masks")
    from distill.tiles import masks

    return masks.main(argv)


def _presets(argv: Sequence[str]) -> int:
    from distill.run import preset_lines
    from distill.tasks.registry import PRESETS

    if _json_asked("presets", "List the presets.", argv):
        print_json({name: (make.__doc__ or "").splitlines()[0] for name, make in PRESETS.items()})
    else:
        print(*preset_lines(), sep="\n")
    return 0


def _json_asked(command: str, purpose: str, argv: Sequence[str]) -> bool:
    """Read the options of a command that has none but `--json`."""
    parser = CommandParser(prog=f"edgedistill {command}", description=purpose)
    add_json(parser)
    return parser.parse_args(argv).json


def _students(argv: Sequence[str]) -> int:
    from distill.students import command as students

    options = students.parse(argv)
    _require_training("students")
    return students.run(options)


def _losses(argv: Sequence[str]) -> int:
    as_json = _json_asked("losses", "List the losses with their options.", argv)
    _require_training("losses")
    from distill.tasks.registry import loss_lines

    lines = list(loss_lines())
    if as_json:
        print_json(lines)
    else:
        print(*lines, sep="\n")
    return 0


def _label(argv: Sequence[str]) -> int:
    from distill.labeling import command as labeling

    return labeling.main(argv)


def _compare(argv: Sequence[str]) -> int:
    from distill.compare import command as compare

    return compare.main(argv)


def _evaluate(argv: Sequence[str]) -> int:
    from distill.evaluate import command as evaluate

    return evaluate.main(argv)


def _report(argv: Sequence[str]) -> int:
    from distill.page import command as page

    return page.main(argv)


def _convert(argv: Sequence[str]) -> int:
    _require_training("convert")
    from distill.convert import command as convert

    return convert.main(argv)


def _completion(argv: Sequence[str]) -> int:
    parser = CommandParser(
        prog="edgedistill completion",
        description="Print the code with which a shell completes commands, options and values.",
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    shell = parser.parse_args(argv).shell
    if find_spec("argcomplete") is None:
        raise UserError("completion needs argcomplete: pip install argcomplete")
    from argcomplete.shell_integration import shellcode  # optional dependency

    print(shellcode(["edgedistill"], shell=shell))
    return 0


def _require_training(command: str) -> None:
    if sys.version_info < (3, 11):
        here = ".".join(map(str, sys.version_info[:2]))
        raise UserError(
            f"{command} needs Python 3.11 or later, this is {here} (on which bundles are built and run);"
            " train on another machine, or with another Python here"
        )
    if find_spec("torch") is None or find_spec("timm") is None:
        raise UserError(f"{command} needs the training packages: pip install 'edgedistill[train]'")


TRAINING: dict[str, Callable[[Sequence[str]], int]] = {
    "run": _run,
    "pretrain": _pretrain,
    "presets": _presets,
    "inspect": _inspect,
    "tiles": _tiles,
    "masks": _masks,
    "students": _students,
    "losses": _losses,
    "label": _label,
    "compare": _compare,
    "evaluate": _evaluate,
    "report": _report,
    "convert": _convert,
    "completion": _completion,
}
"""Commands that are not those of a device."""
