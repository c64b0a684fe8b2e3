"""The check of an engine without labeled images: the golden outputs of its bundle."""

import warnings
from collections.abc import Callable
from pathlib import Path

from deploy.backends.gpu_options import DEFAULT, GpuOptions
from deploy.build.opening import open_built
from deploy.bundle.engine_files import record_verdict
from deploy.errors import GateFailed, UserError
from deploy.evaluation.golden import compare
from deploy.quantize.options import Say


def compare_golden(
    bundle: Path,
    backend: str,
    precision: str,
    *,
    engine: Path | None = None,
    gpu: GpuOptions = DEFAULT,
    say: Say = print,
) -> None:
    """Compare a backend with the golden outputs of the bundle: the check that needs no labeled data.

    The verdict is written beside `engine`, if one was compiled.

    Raises:
        GateFailed: the outputs differ by more than the precision allows.
    """
    comparison = compare(bundle, open_built(bundle, backend, precision, engine, gpu).engine)
    say(comparison.text)
    if engine:
        write_optional(engine, lambda: record_verdict(engine, comparison.passed))
    if not comparison.passed:
        raise GateFailed(f"{comparison.text}; the engine does not compute what the bundle was measured with")


def write_optional(path: Path, write: Callable[[], None]) -> None:
    """Write an optional file: warn where it cannot be written, as in a read-only bundle."""
    try:
        write()
    except (UserError, OSError) as error:
        warnings.warn(f"{path.name} not written: {error}", RuntimeWarning, stacklevel=3)
