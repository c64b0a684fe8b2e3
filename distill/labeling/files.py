"""A folder of images and predicted masks that people correct and `edgedistill run folder` trains on.

images/NAME.*  masks/NAME.png      the masks hold class ids, 255 = void
classes.json                       names and colors of the classes, names of the channels
next.csv                           which images to label first, and why
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deploy.bundle.manifest import Manifest
from deploy.errors import UserError
from deploy.evaluation.labeled_data import write_image
from deploy.files.atomic import write_json
from deploy.files.images import write_png
from distill.data.datasets.image_folder import ImageFiles, read_files
from distill.labeling.prediction import Prediction
from distill.reporting.csv_files import Cell, write_csv

RANKING = "next.csv"


def check_new(out: Path) -> None:
    """Raise `UserError` if a folder holds files, which may be masks that somebody has corrected."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: exists, and corrected masks are never replaced; choose another folder")


def write_pair(folder: Path, stem: str, image: ImageFiles, mask: np.ndarray) -> None:
    """Copy an image, and write its mask beside it; channels that are files of their own become one file."""
    if len(image.paths) == 1:
        target = folder / "images" / f"{stem}{image.paths[0].suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image.paths[0], target)
    else:
        write_image(folder / "images" / stem, read_files(image))
    write_png(folder / "masks" / f"{stem}.png", mask)


def remove_pair(folder: Path, stem: str) -> None:
    """Remove what `write_pair` has written."""
    for path in [*(folder / "images").iterdir(), *(folder / "masks").iterdir()]:
        if path.stem == stem:
            path.unlink()


def write_classes(folder: Path, manifest: Manifest) -> None:
    """Write `classes.json`, by which the masks are read."""
    classes = [{"name": one.name, "color": list(one.color)} for one in manifest.classes]
    write_json(folder / "classes.json", {"classes": classes, "channels": list(manifest.input.channels)})


def write_ranking(
    folder: Path, ranked: Sequence[Prediction], stems: Sequence[str], manifest: Manifest
) -> None:
    """Write `next.csv`, the images to label first at its top.

    Args:
        folder: where to write it.
        ranked: the predictions in order.
        stems: names of their files in the folder, without suffix; empty where there are none.
        manifest: of the network, for the names of the classes.
    """
    header = ("rank", "image", "mask", "confidence", "disagreement", "void")
    rows: list[list[Cell]] = [
        [
            rank,
            one.name,
            stem and f"masks/{stem}.png",
            one.confidence,
            one.disagreement,
            one.void,
            *one.shares,
        ]
        for rank, (one, stem) in enumerate(zip(ranked, stems, strict=True), start=1)
    ]
    write_csv(folder / RANKING, (*header, *(info.name for info in manifest.classes)), rows)
