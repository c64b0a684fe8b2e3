"""Figures of plots. matplotlib is an optional dependency, so functions import it when they are called."""

from collections.abc import Sequence
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.errors import UserError
from deploy.files.atomic import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def require_matplotlib(command: str) -> None:
    """Check that matplotlib is installed.

    Args:
        command: name of the command, for the error message.

    Raises:
        UserError: it is not installed; the message says how to install it.
    """
    if find_spec("matplotlib") is None:
        raise UserError(f"{command} draws with matplotlib: pip install 'edgedistill[bench]'")


def panels(count: int) -> tuple["Figure", Sequence[Any]]:
    """A figure with `count` axes, three in a row."""
    from matplotlib.figure import Figure  # optional dependency

    columns = min(count, 3)
    rows = -(-count // columns)
    figure = Figure(figsize=(5 * columns, 4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in axes[count:]:
        unused.remove()
    return figure, list(axes[:count])


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG or, by its suffix, SVG, atomically; the same figure gives the same file."""
    import matplotlib as mpl  # optional dependency

    drawn, kind = BytesIO(), path.suffix[1:] or "png"
    with mpl.rc_context({"svg.hashsalt": "edgedistill", "svg.fonttype": "none"}):
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(drawn, format=kind, dpi=110, metadata=metadata)
    with atomic_write(path) as file:
        file.write(drawn.getbuffer())
