"""Fields of a configuration by dotted name: list them, and copy a configuration with some of them changed."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec

from deploy.errors import UserError, did_you_mean
from distill.config import RunConfig
from distill.field_checks import FieldError

Config = TypeVar("Config")


def field_names(kind: type = RunConfig, prefix: str = "") -> list[str]:
    """The dotted names of a configuration's fields, such as `student_train.steps`."""
    names: list[str] = []
    for field in dataclasses.fields(kind):
        name = f"{prefix}{field.name}"
        nested = isinstance(field.type, type) and dataclasses.is_dataclass(field.type)
        names += field_names(field.type, f"{name}.") if nested else [name]  # pyright: ignore[reportArgumentType]
    return names


def check_fields(arguments: Sequence[str], kind: type, command: str) -> None:
    """Raise `UserError` for the first of the flags on a command line that is no field, with the most similar one.

    Args:
        arguments: flags and values.
        kind: the configuration.
        command: whose `--help` lists the fields.
    """
    known = [name.replace("_", "-") for name in field_names(kind)]
    for argument in arguments:
        asked = argument.removeprefix("--").partition("=")[0].replace("_", "-")
        is_known = asked == "help" or asked in known or without_no(asked) in known
        if argument.startswith("--") and not is_known:
            raise UserError(
                f"unknown field --{asked}{did_you_mean(asked, known)}; {command} --help lists all"
            )


def without_no(name: str) -> str:
    """`data.no-cache` is the off switch of `data.cache`."""
    head, dot, last = name.rpartition(".")
    return f"{head}{dot}{last.removeprefix('no-')}"


def with_changes(config: Config, changes: Mapping[str, Any], where: str = "") -> Config:
    """A copy of a configuration with some fields changed.

    Args:
        config: a frozen dataclass; its fields may be frozen dataclasses too.
        changes: new values by dotted name, `{"student_train.steps": 10}`, or nested,
            `{"student_train": {"steps": 10}}`; a string is accepted for a path, and a list for a tuple.
        where: prefix of field names in messages.

    Raises:
        UserError: a field is unknown, or its value is invalid.
    """
    fields = {field.name: field.type for field in dataclasses.fields(config)}  # pyright: ignore[reportArgumentType]
    new: dict[str, Any] = {}
    for name, value in changes.items():
        head, _, rest = name.partition(".")
        old = new.get(head, getattr(config, head, None))
        nested = dataclasses.is_dataclass(old)
        if head not in fields or (rest and not nested):
            hint = did_you_mean(where + name, field_names())
            raise UserError(f"unknown field {where}{name}{hint}; `edgedistill run PRESET --help` lists all")
        if nested and (rest or isinstance(value, Mapping)):
            new[head] = with_changes(old, {rest: value} if rest else value, f"{where}{head}.")
        else:
            new[head] = _converted(value, fields[head], where + head)
    try:
        return dataclasses.replace(config, **new)  # pyright: ignore[reportArgumentType, reportReturnType, reportCallIssue]
    except FieldError as error:
        name = error.field.replace("-", "_")
        raise UserError(f"{where}{name} {error.problem}") from None


def _converted(value: Any, kind: Any, name: str) -> Any:
    """The value, converted to the type of its field."""
    if isinstance(kind, type) and isinstance(value, kind) and dataclasses.is_dataclass(kind):
        return value
    if get_origin(kind) is Literal and value not in get_args(kind):
        raise UserError(f"{name}={value!r}: choose one of {', '.join(map(repr, get_args(kind)))}")
    try:
        plain = msgspec.to_builtins(value, enc_hook=_without_paths)
        return msgspec.convert(plain, kind, dec_hook=_path)
    except (msgspec.ValidationError, TypeError) as error:
        raise UserError(f"{name}={value!r}: {error}") from None


def _without_paths(value: Any) -> str:
    """Convert a path to a string, as `msgspec` does not support paths."""
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"there is no field of type {type(value).__name__}")


def _path(kind: type, value: Any) -> Any:
    if issubclass(kind, Path) and isinstance(value, str):
        return kind(value)
    raise TypeError(f"Expected a path, got {type(value).__name__}")
