"""Point clouds of Cornell, converted to depth images."""

from pathlib import Path

import numpy as np

from deploy.errors import UserError
from distill.data.datasets.pairs import read_text
from distill.data.grasp.files import mark_holes

_FIELDS = ("x", "y", "z", "index")
_MILLIMETERS = 1000.0


def depth_from_cloud(path: Path, height: int, width: int) -> np.ndarray:
    """Read a PCD file as a depth image.

    The file is ASCII with FIELDS x y z rgb index, where the row and column of a point's pixel are index // width and
    index % width, both from 0, and x, y, z are millimeters from the base of the robot. As in GG-CNN
    (generate_cornell_depth.py), depth is the distance from that origin. Points that are not finite are skipped.

    Args:
        path: the file.
        height: height of the image.
        width: width of the image.

    Returns:
        float32 H×W in meters, NaN where the cloud has no point.

    Raises:
        UserError: the file is missing, has another format, or has a point outside the image.
    """
    text = read_text(path)
    header, found, data = text.partition("DATA ascii")
    fields = next((line.split()[1:] for line in header.splitlines() if line.startswith("FIELDS")), [])
    if not found or not set(_FIELDS) <= set(fields):
        raise UserError(
            f"{path}: is not an ASCII point cloud (PCD) with the fields x y z rgb index; get the file again"
        )
    points = _points(data, len(fields), path)[:, [fields.index(name) for name in _FIELDS]]
    points = points[np.isfinite(points).all(axis=1)]
    pixel = points[:, 3].astype(np.int64)
    if pixel.size and not 0 <= pixel.min() <= pixel.max() < height * width:
        wrong = int(pixel.max()) if pixel.max() >= height * width else int(pixel.min())
        raise UserError(f"{path}: pixel {wrong} lies outside an image of {height}×{width} pixels")
    depth = np.full(height * width, np.nan)
    depth[pixel] = np.linalg.norm(points[:, :3], axis=1) / _MILLIMETERS
    return mark_holes(depth.reshape(height, width))


def _points(data: str, columns: int, path: Path) -> np.ndarray:
    """Numbers float64 N×`columns` from the lines after the header."""
    lines = data.split("\n")[1:]
    try:
        numbers = np.array(" ".join(lines).split(), np.float64)
        points = numbers.reshape(-1, columns)
    except ValueError as error:
        raise UserError(f"{path}: its points are not {columns} numbers each; get the file again") from error
    return points
