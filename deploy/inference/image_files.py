"""Image files as the images of a network: the reader of images, with what the network's input says beforehand."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError
from deploy.files.images import read_pixels
from deploy.inference.normalize import fill_of

NO_END = "_coco"
"""`a_coco.json` is a format of the image `a`; the JSON of the image `a_coco` is another file."""


def read_input(
    path: Path, spec: InputSpec, size: tuple[int, ...] | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read an image file for a network.

    A network of uint8 takes no NaN: pixels without data in a file of uint8 get the channel means, as in rasters
    (`deploy.raster.reading`), and where they are is returned.

    Args:
        path: the file.
        spec: the network's input.
        size: as `deploy.files.images.read_image` takes it.

    Returns:
        H×W×C, as `deploy.files.images.read_image` returns it, and bool H×W: pixels with data; None where only the
        pixels themselves say so.

    Raises:
        UserError: the file cannot be read, or has other channels than the network, which is checked before its pixels
            are decoded. The message names the file.
    """
    values = read_pixels(path, spec.channels, size)
    if spec.dtype != "uint8" or values.pixels.dtype != np.uint8 or values.missing is None:
        return values.with_nan(), None
    known = values.known()
    fill = fill_of(spec).astype(np.uint8)
    return np.where(known[..., None], values.pixels, fill), known


def predict_file(model: Any, path: Path) -> tuple[np.ndarray, Any]:
    """Read an image file and predict it: what `edgedistill predict` does with each.

    Args:
        model: a `deploy.tasks.task.Model`.
        path: the file.

    Returns:
        The image H×W×C as it was read, and the `deploy.tasks.task.Result` of the model.

    Raises:
        UserError: as `read_input` and the model do, or memory is too small for it; the message names the file.
    """
    image, known = read_input(path, model.input)
    try:
        if known is None:
            return image, model(image)
        ready = model.prepare(image)
        return image, model.predict([replace(ready, valid=ready.valid & known)])[0]
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except MemoryError as error:
        height, width = image.shape[:2]
        raise UserError(
            f"{path}: too little memory for {width}×{height} pixels; cut it into parts"
        ) from error


def output_names(paths: Sequence[Path], given: Mapping[str, str] | None = None) -> list[str]:
    """A unique output name for each file: its stem, or `a_png` and `a_jpg` where stems repeat.

    No name ends with `NO_END`: with another ending, the results of two images would have one name.

    Args:
        paths: the files.
        given: names that files have had before, by their absolute paths: they keep them, and no other file gets them.
    """
    given = given or {}
    stems, taken, names = Counter(path.stem for path in paths), set(given.values()), []
    for path in paths:
        name = given.get(str(path.resolve()))
        if name is None:
            name = path.stem if stems[path.stem] == 1 else path.name.replace(".", "_")
            while name in taken or name.endswith(NO_END):
                name += "_"
            taken.add(name)
        names.append(name)
    return names
