"""`edgedistill run PRESET [--field value …]`: train a teacher, distill a student, export it and verify the export.

In a clone `python distill/run.py` is the same command.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository root, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from deploy.errors import GateFailed, UserError, did_you_mean, exit_with_one_line
from deploy.files.json_output import words_to_stderr
from deploy.measure.records import read_measurement
from deploy.verbosity import take_options
from distill.config import ModelConfig, RunConfig
from distill.field_checks import FieldError
from distill.overrides import check_fields, with_changes, without_no
from distill.tasks.registry import PRESETS

REPORT = "report.json"
"""Of a run, in its folder: what `--json` prints."""
USAGE = "usage: edgedistill run PRESET [--field value …]   (PRESET --help lists the fields)"

OPEN_SWITCHES = ("teacher.detail", "student.detail")
"""Switches that are neither on nor off by default: a run decides."""

SPELLING = ("--data.unlabelled", "--data.unlabeled")  # codespell:ignore unlabelled
"""Another spelling of an option, and its name."""

SHORT = {"data": "data.root", "teacher": "teacher.arch", "student": "student.arch"}
"""What a path or a name in place of a whole section of the configuration means."""

WITH_DETAIL = ("pspnet/", "edge")
"""How the names of networks with the option `detail` begin."""

WITH_BACKBONE = ("pspnet/", "deeplabv3plus/", "smp/", "torchvision/", "hf/")
"""The same for the option `pretrained`."""


def main(argv: Sequence[str]) -> int:
    """Run the preset `argv[0]` with the fields changed that follow, and return the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, "", "presets:", *preset_lines(), sep="\n")
        return 0 if argv else 2
    as_json = "--json" in argv
    config = parse([word for word in argv if word != "--json"])
    _check_folders(config)
    from distill.pipeline.pipeline import run  # start-up time: torch

    try:
        with words_to_stderr(as_json):
            report = run(config)
    except GateFailed:
        if as_json:
            print((config.out / REPORT).read_text(encoding="utf-8"), end="")
        raise
    if as_json:
        print(report.with_name(REPORT).read_text(encoding="utf-8"), end="")
    return 0


def parse(argv: Sequence[str], command: str = "edgedistill run") -> RunConfig:
    """The configuration of a command line.

    Args:
        argv: `PRESET [--field value …]`. tyro itself exits with code 2 on a value that it cannot read.
        command: name of the command in the help.

    Raises:
        UserError: the preset or a field is unknown, or a field cannot have the value.
    """
    import tyro  # start-up time

    name, *fields = argv
    fields = _with_values([field.replace(*SPELLING) for field in fields])
    make = _preset_named(name)
    check_fields(fields, RunConfig, name)

    def read(arguments: Sequence[str]) -> RunConfig:
        prog = f"{command} {name}"
        default = with_families(make(), _typed_architectures(fields))
        return tyro.cli(RunConfig, default=default, args=arguments, prog=prog, description=make.__doc__)

    try:
        return read(fields)
    except FieldError as error:
        raise _as_typed(error, fields, read) from None


def preset(name: str, **changes: Any) -> RunConfig:
    """The configuration of a preset, with some of its fields changed.

    Args:
        name: name of the preset, such as "quick"; `edgedistill presets` lists all.
        changes: new values by dotted name, `**{"student_train.steps": 10}`, or nested, `student_train={"steps": 10}`;
            a folder as `data` is its root, and a name as `teacher` or `student` its architecture.

    Raises:
        UserError: the preset or a field is unknown, or a field cannot have the value.
    """
    changes = {
        SHORT.get(field, field) if isinstance(value, str | Path) else field: value
        for field, value in _spelled(changes).items()
    }
    return with_changes(with_families(_preset_named(name)(), _given_architectures(changes)), changes)


def _spelled(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes, dotted or nested, with the names that fields have."""
    theirs, ours = (option.removeprefix("--data.") for option in SPELLING)
    return {
        name.replace(theirs, ours): _spelled(value) if isinstance(value, Mapping) else value
        for name, value in changes.items()
    }


def with_families(config: RunConfig, archs: Mapping[str, str]) -> RunConfig:
    """A preset without the options of a network that the one which replaces it would refuse.

    `output_stride`, `head_channels` and `pretrained` that suit a PSPNet mean nothing to a U-Net, nor does an output
    stride to a backbone that keeps its own.

    Args:
        config: the preset.
        archs: the architecture that replaces that of "teacher" or "student".
    """
    for part, arch in archs.items():
        model: ModelConfig = getattr(config, part)
        if arch.partition("/")[0] != model.arch.partition("/")[0]:
            new = ModelConfig(arch)
            model = replace(model, output_stride=new.output_stride, head_channels=new.head_channels)
            if not arch.startswith(WITH_DETAIL):
                model = replace(model, detail=new.detail)
            if not arch.startswith(WITH_BACKBONE):
                model = replace(model, pretrained=new.pretrained)
        elif arch != model.arch:
            model = _with_own_stride(model, arch)
        config = replace(config, **{part: model})
    return config


def _with_own_stride(model: ModelConfig, arch: str) -> ModelConfig:
    """The preset's network without the output stride, and `detail`, that its new backbone cannot have."""
    from teacher.own_stride import is_columnar, keeps_its_stride  # start-up time: torch

    new, backbone = ModelConfig(arch), arch.partition("/")[2]
    if keeps_its_stride(backbone):
        model = replace(model, output_stride=new.output_stride)
    return replace(model, detail=new.detail) if is_columnar(backbone) else model


def _check_folders(config: RunConfig) -> None:
    """Refuse at once what would be refused after seconds of imports."""
    root = config.data.root
    if root is not None and not root.is_dir() and not config.data.download:
        raise UserError(f"--data.root {root}: no such folder; give the folder of the data set")
    for part, model in (("teacher", config.teacher), ("student", config.student)):
        if model.weights is not None and not model.weights.is_file():
            raise UserError(
                f"--{part}.weights {model.weights}: no such weights file; give a checkpoint (.safetensors)"
            )
    if config.student.on is not None and not config.resume:  # a resumed run has read it
        read_measurement(config.student.on)
    if (config.out / "config.json").exists():
        from distill.run_folder import require_resume  # start-up time: torch

        require_resume(config)


def preset_lines() -> list[str]:
    """One line per preset: its name and purpose."""
    return [f"  {name:<12}{(make.__doc__ or '').splitlines()[0]}" for name, make in PRESETS.items()]


def _preset_named(name: str) -> Callable[[], RunConfig]:
    if name not in PRESETS:
        raise UserError(
            f"unknown preset {name!r}{did_you_mean(name, PRESETS)}; presets: {', '.join(PRESETS)}"
        )
    return PRESETS[name]


def _as_typed(
    error: FieldError, arguments: Sequence[str], read: Callable[[Sequence[str]], RunConfig]
) -> UserError:
    """The error with the flag as it was typed: the section `train` in a `FieldError` may be either training.

    Args:
        error: from reading all arguments.
        arguments: the command line after the preset.
        read: raises `FieldError` for the flag in question, given alone with its values.
    """
    starts = [position for position, argument in enumerate(arguments) if argument.startswith("--")]
    for start, end in zip(starts, [*starts[1:], len(arguments)], strict=True):
        flag = arguments[start].removeprefix("--").partition("=")[0].replace("_", "-")
        if flag.endswith(f"{error.section}.{error.field}"):
            try:
                read(arguments[start:end])
            except FieldError:
                return UserError(f"--{flag} {error.problem}")
    return error


def _with_values(fields: Sequence[str]) -> list[str]:
    """Write `--student.detail` and `--student.no-detail`, as other switches have, with the value that tyro wants."""
    full: list[str] = []
    for position, field in enumerate(fields):
        following = next(iter(fields[position + 1 :]), "--")
        name = field.removeprefix("--").replace("_", "-")
        if name in OPEN_SWITCHES and following.startswith("--"):
            full += [field, "True"]
        elif name not in OPEN_SWITCHES and without_no(name) in OPEN_SWITCHES:
            full += [f"--{without_no(name)}", "False"]
        else:
            full.append(field)
    return full


def _typed_architectures(fields: Sequence[str]) -> dict[str, str]:
    """The values of `--teacher.arch` and `--student.arch` on a command line."""
    archs: dict[str, str] = {}
    for field, following in pairwise([*fields, ""]):
        name, equals, value = field.partition("=")
        if name in ("--teacher.arch", "--student.arch"):
            archs[name[2:9]] = value if equals else following
    return archs


def _given_architectures(changes: Mapping[str, Any]) -> dict[str, str]:
    """The same in the changes of a preset, which may be nested."""
    archs: dict[str, str] = {}
    for part in ("teacher", "student"):
        nested = changes.get(part)
        arch = changes.get(f"{part}.arch", nested.get("arch") if isinstance(nested, Mapping) else None)
        if isinstance(arch, str):
            archs[part] = arch
    return archs


if __name__ == "__main__":
    exit_with_one_line(lambda: main(take_options(sys.argv[1:])))
