"""What `edgedistill predict-many` is asked to predict: images, rasters, or a mosaic."""

import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from deploy.bundle.manifest import Manifest
from deploy.cluster.scenes import Scene, stamp_of
from deploy.cluster.tasks import Item
from deploy.cluster.work import FOLDER
from deploy.errors import UserError
from deploy.files.atomic import require_name
from deploy.files.images import list_images
from deploy.inference.image_files import output_names
from deploy.raster.command import check_raster
from deploy.raster.opening import find_raster, list_rasters
from deploy.raster.predict import Options, plan
from deploy.text import shown


@dataclass(frozen=True)
class Inputs:
    """Images or rasters, and where their results go."""

    kind: str
    """"images", "rasters" or "mosaics"."""
    out: Path
    """Folder of the results."""
    work: Path
    """Folder of what is not finished."""
    sample: Path
    """A file that all workers must see."""
    images: list[Item] = field(default_factory=list)
    scenes: list[Scene] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """What is wrong with rasters that could not be opened."""

    @property
    def total(self) -> int:
        """Number of inputs."""
        return len(self.images) + len(self.scenes) + len(self.failures)


def find_images(folder: Path, out: Path) -> Inputs:
    """The images of a folder, with the names that `edgedistill predict` gives to their results.

    Raises:
        UserError: it holds none, or is the folder of the results.
    """
    _check_folders(folder, out)
    paths = list_images(folder)
    names = zip(paths, output_names(paths), strict=True)
    items = [Item(str(path.absolute()), name, _stamp(path)) for path, name in names]
    return Inputs("images", out, out / FOLDER, paths[0], images=items)


def find_rasters(
    folder: Path, out: Path, bands: Sequence[int] | None, options: Options, manifest: Manifest
) -> Inputs:
    """The GeoTIFFs of a folder, each planned by itself.

    Args:
        folder: where they are.
        out: folder of the results.
        bands: bands to read, numbered from 1; None: all but alpha.
        options: how to process them.
        manifest: of the bundle.

    Raises:
        UserError: it holds none, or is the folder of the results. What is wrong with single files is in the result.
    """
    _check_folders(folder, out)
    paths, scenes, failures = list_rasters(folder), [], []
    told: dict[str, None] = {}
    for path, name in zip(paths, output_names(paths), strict=True):
        try:
            scene, lines = _scene(path, f"{name}.tif", bands, options, manifest)
        except UserError as error:
            failures.append(str(error))
            continue
        scenes.append(scene)
        told |= dict.fromkeys(lines)
    _print_notes(told)
    return Inputs("rasters", out, out / FOLDER, paths[0], scenes=scenes, failures=failures)


def find_mosaic(
    path: Path, out: Path, bands: Sequence[int] | None, options: Options, manifest: Manifest
) -> Inputs:
    """One raster: what `deploy.raster.opening.find_raster` takes. Arguments as `find_rasters`, but `out` is a GeoTIFF.

    Raises:
        UserError: it cannot be read, or does not fit the bundle.
    """
    scene, told = _scene(path, out.name, bands, options, manifest)
    _print_notes(told)
    work = require_name(out).with_name(f".{out.name}{FOLDER}")
    return Inputs("mosaics", out.parent, work, scene.raster.files()[0], scenes=[scene])


def _scene(
    path: Path, name: str, bands: Sequence[int] | None, options: Options, manifest: Manifest
) -> tuple[Scene, list[str]]:
    """Plan a raster; also notes for the user."""
    raster = find_raster(path.absolute(), bands)
    with closing(raster.open()) as source:
        told = check_raster(manifest, source)
        grid, stamp = plan(manifest, source, options), stamp_of(source.fingerprint())
        return Scene(raster, name, stamp, grid, options, len(manifest.classes)), told


def _check_folders(folder: Path, out: Path) -> None:
    if folder.is_file():
        raise UserError(f"{folder}: is a file; give a folder (for one file: predict, or predict-raster)")
    if out.resolve() == folder.resolve():
        raise UserError(
            f"OUT {out}: is the folder of the inputs, so results could overwrite them; choose another"
        )


def _stamp(path: Path) -> str:
    info = path.stat()
    return f"{info.st_size} {info.st_mtime_ns}"


def _print_notes(lines: Iterable[str]) -> None:
    for line in lines:
        print(f"note: {shown(line)}", file=sys.stderr)
