"""From labeled images to a small, verified model on the edge.

    import edgedistill

    config = edgedistill.preset("quick", out="runs/first", **{"student_train.steps": 300})
    edgedistill.run(config)  # train, distill, export, verify; needs edgedistill[train]
    edgedistill.build("runs/first/student.bundle", precision="fp16")
    model = edgedistill.load("runs/first/student.bundle")  # without torch
    labels = model(image).labels
    labels = edgedistill.raster(stack, "runs/first/student.bundle")  # of an xarray.DataArray

Importing this package imports nothing else: each name is loaded when it is first used.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploy import load
    from deploy.raster.dataarray import predict_dataarray as raster
    from distill.pipeline.pipeline import run
    from distill.run import preset
    from edgedistill.building import build

    __version__: str

__all__ = ["__version__", "build", "load", "preset", "raster", "run"]

ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds this package and its neighbors."""
NEIGHBORS = ("deploy", "distill", "student", "teacher")

_MODULES = {
    "build": "edgedistill.building",
    "load": "deploy",
    "preset": "distill.run",
    "raster": "deploy.raster.dataarray",
    "run": "distill.pipeline.pipeline",
}
_NAMES = {"raster": "predict_dataarray"}
"""Names in those modules, where they differ."""


def __getattr__(name: str) -> object:
    if name == "__version__":
        return _version()
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_neighbors()
    return getattr(import_module(_MODULES[name]), _NAMES.get(name, name))


def __dir__() -> list[str]:
    return __all__


def import_neighbors() -> None:
    """Import the packages beside this one, so that a folder `deploy` where Python was started does not shadow ours.

    Raises:
        ImportError: another package of such a name has been imported already.
    """
    sys.path.insert(0, str(ROOT))
    try:
        for name in NEIGHBORS:
            file = import_module(name).__file__
            if file is None or Path(file).resolve().parent != ROOT / name:
                raise ImportError(
                    f"{name!r} is already imported from {file}, but edgedistill needs its own package of that name; "
                    "rename yours, or use edgedistill before importing it"
                )
    finally:
        sys.path.remove(str(ROOT))


def _version() -> str:
    """The version in `pyproject.toml` of a clone, elsewhere that of the installed package."""
    project = ROOT / "pyproject.toml"
    if project.exists():
        # Python 3.10 cannot read TOML; a test compares this with what a reader of TOML says.
        lines = project.read_text(encoding="utf-8").splitlines()
        return next(line.split('"')[1] for line in lines if line.startswith("version = "))
    from importlib.metadata import version  # start-up time

    return version("edgedistill")
