"""Draw grasps into images: the opening as a thin line, and the jaws across its ends as thick ones."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from deploy.tasks.grasp.geometry import corners

OPENING, JAWS = (255, 255, 0), (230, 30, 30)
"""Colors of predicted grasps; all but the best are fainter."""
TRUE = (40, 200, 60)
_LEAST_SIDE = 300
"""Smaller images are enlarged so that the lines do not hide the objects."""


def draw_grasps(
    picture: np.ndarray, grasps: np.ndarray, qualities: Sequence[float] | np.ndarray | None = None
) -> np.ndarray:
    """Draw grasps into an image.

    Args:
        picture: RGB uint8 H×W×3.
        grasps: N×5, the best first.
        qualities: N; without them the grasps are the truth, and all are drawn in green.

    Returns:
        RGB uint8, enlarged by an integer factor if the image is small.
    """
    zoom = max(1, -(-_LEAST_SIDE // min(picture.shape[:2])))
    canvas = Image.fromarray(np.ascontiguousarray(picture.repeat(zoom, 0).repeat(zoom, 1)))
    draw = ImageDraw.Draw(canvas, "RGBA")
    rings = (corners(grasps) + 0.5) * zoom - 0.5
    for rank in reversed(range(len(rings))):  # the best last, on top
        alpha = 255 if rank == 0 or qualities is None else 110
        opening, jaws = (OPENING, JAWS) if qualities is not None else (TRUE, TRUE)
        a, b, c, d = (tuple(point) for point in rings[rank])
        thin, thick = (1, 3) if qualities is not None else (1, 1)
        draw.line([a, b], fill=(*opening, alpha), width=thin)
        draw.line([c, d], fill=(*opening, alpha), width=thin)
        draw.line([a, d], fill=(*jaws, alpha), width=thick)
        draw.line([b, c], fill=(*jaws, alpha), width=thick)
    return np.asarray(canvas)
