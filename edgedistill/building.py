"""`edgedistill build` as a function."""

import contextlib
import io
from pathlib import Path
from typing import Any

from deploy import build_engine
from deploy.build.options import option_names, parse
from deploy.errors import UserError, did_you_mean

_PROG = "edgedistill build"


def build(bundle: str | Path, **options: Any) -> None:
    """Quantize and compile a bundle for a device, verify the result and print its receipt, as `edgedistill build` does.

    Args:
        bundle: the folder; models, engines and receipts are added to it.
        options: those of the command (`edgedistill build --help`), with underscores and Python values, such as
            `precision="fp16"`, `batch=(1, 4, 8)` or `sensitivity=True`. None and False leave an option out.

    Raises:
        UserError: an unknown option, a value that the option does not take, or anything the command refuses.
        GateFailed: a hop is over its budget.
    """
    argv = [str(bundle), *(text for name, value in options.items() for text in _option(name, value))]
    _check(argv, options)
    build_engine.main(argv, prog=_PROG)


def _option(name: str, value: object) -> list[str]:
    """An option as it is typed."""
    flag = f"--{name.replace('_', '-')}"
    if value is None or value is False:
        return []
    if value is True:
        return [flag]
    values = value if isinstance(value, list | tuple) else [value]
    return [f"{flag}={','.join(map(str, values))}"]


def _check(argv: list[str], options: dict[str, Any]) -> None:
    """Refuse what the command's parser refuses, which would print its usage and exit."""
    known = option_names()
    for name in options:
        if name not in known:
            raise UserError(
                f"build has no option {name}{did_you_mean(name, known)}; it has {', '.join(known)}"
            )
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            parse(argv, _PROG)
    except SystemExit:
        raise UserError(
            printed.getvalue().strip().splitlines()[-1].removeprefix(f"{_PROG}: error: ")
        ) from None
