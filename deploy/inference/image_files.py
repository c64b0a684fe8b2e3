"""Image files as the images of a network: the reader of images, with what the network's input says beforehand."""

from pathlib import Path

import numpy as np

from deploy.bundle.manifest import InputSpec
from deploy.files.images import read_pixels
from deploy.inference.normalize import fill_of


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
    fill = fill_of(spec.mean, "set").astype(np.uint8)
    return np.where(known[..., None], values.pixels, fill), known
