"""Prepare depth images for a grasp network: fill holes, and make depth relative to its mean. Needs only numpy.

Training and devices call the same functions, in this order: `fill_holes` at the camera's resolution, resize to the
network (`deploy.inference.preprocess.resize`), `center`. GG-CNN (Morrison et al., RSS 2018, arXiv:1804.05172) does the
same with OpenCV's inpainting in place of `fill_holes`.
"""

import warnings

import numpy as np

REACH = 1.0
"""Depth is clipped to this distance from the mean, in meters; the value of GG-CNN."""
_MOST_METERS = 20.0
_STRIDE = 4


def fill_holes(depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fill pixels that a camera could not measure from the measured ones around them.

    Push-pull (Gortler et al., "The Lumigraph", SIGGRAPH 1996): halve the image by averaging known pixels until none is
    unknown, then fill each level bilinearly from the coarser one. Known pixels keep their values, and filled ones lie
    between the smallest and the largest of them. Takes a few ms for 300×300, for holes of any size.

    Args:
        depth: H×W in meters, of any real dtype; NaN, infinite, zero and negative pixels are holes.

    Returns:
        The filled depth, float32 H×W and always a new array; and the bool mask H×W of pixels that were measured. If
        none was, the depth is 0.
    """
    depth = np.asarray(depth)
    known = np.isfinite(depth) & (depth > 0)
    filled = np.where(known, depth, 0).astype(np.float32)
    if known.any():
        _fill(filled, known)
    return filled, known


def center(depth: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """Depth relative to its mean, clipped to ±`REACH`: float32 H×W in meters.

    Args:
        depth: H×W in meters, without holes.
        where: bool H×W: pixels that the mean is taken over; default all. If there are none, the result is 0.
    """
    seen = depth if where is None else depth[where]
    if seen.size == 0:
        return np.zeros(depth.shape, np.float32)
    mean = np.float32(seen.mean(dtype=np.float64))  # summed in float64: independent of the size of the image
    return np.clip(depth - mean, -REACH, REACH).astype(np.float32, copy=False)


def warn_of_millimeters(depth: np.ndarray) -> None:
    """Emit a `RuntimeWarning` if a sample of the pixels of depth H×W cannot be meters; the depth is not changed.

    Python shows a warning once, unless configured otherwise.
    """
    sample = depth[::_STRIDE, ::_STRIDE]
    sample = sample[np.isfinite(sample) & (sample > 0)]
    if sample.size and np.median(sample) > _MOST_METERS:
        warnings.warn("depth looks like millimeters; meters are expected", RuntimeWarning, stacklevel=2)


def _fill(values: np.ndarray, known: np.ndarray) -> None:
    """Fill, in place, the unknown pixels of float32 H×W, which are 0; at least one pixel is known."""
    holes = np.flatnonzero(~known)
    if holes.size == 0:
        return
    coarse, coarse_known = _halve(values, known)
    _fill(coarse, coarse_known)
    values.reshape(-1)[holes] = _enlarged_at(coarse, *np.divmod(holes, values.shape[1]))


def _halve(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the known pixels of each 2×2 block, 0 where there are none; and the mask of blocks that have one."""
    count = _sum_of_blocks(known.astype(np.float32))
    return _sum_of_blocks(values) / np.maximum(count, 1), count > 0


def _sum_of_blocks(plane: np.ndarray) -> np.ndarray:
    height, width = plane.shape
    if height % 2 or width % 2:
        plane = np.pad(plane, ((0, height % 2), (0, width % 2)))
    rows = plane[0::2] + plane[1::2]
    return rows[:, 0::2] + rows[:, 1::2]


def _enlarged_at(coarse: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Pixels, at `rows` and `columns`, of `coarse` enlarged twice, bilinearly with pixel centers at half positions."""
    (near_row, far_row), (near_column, far_column) = (
        _neighbors(at, size) for at, size in zip((rows, columns), coarse.shape, strict=True)
    )
    flat, width = coarse.reshape(-1), coarse.shape[1]
    near_row, far_row = near_row * width, far_row * width
    near = 0.75 * flat[near_row + near_column] + 0.25 * flat[near_row + far_column]
    far = 0.75 * flat[far_row + near_column] + 0.25 * flat[far_row + far_column]
    return 0.75 * near + 0.25 * far


def _neighbors(fine: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis, the coarse pixel that contains each fine one, and the next nearest; the border is repeated."""
    near = fine // 2
    return near, np.clip(near + 2 * (fine % 2) - 1, 0, size - 1)
