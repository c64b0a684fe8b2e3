"""Built-in synthetic grasp data: a depth camera looks straight down at objects on a table.

The camera is orthographic: the shorter side of the image covers 32 cm, at any size in pixels. Depth has the errors of a
cheap camera: independent noise in each pixel, which grows with distance, and spatially correlated noise, as matching
windows cause it; quantization to a millimeter; holes at steep edges, in the shadow beside tall objects, and in spots
(Khoshelham & Elberink, Sensors 2012; Mallick et al., IEEE Sensors 2014). Beside an object lie decoys that look like
objects but can hardly be held, because they are flat or too wide. Grasps are computed from the exact outlines
(`distill.data.grasp.antipodal`). Each split has objects of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from deploy.errors import UserError
from distill.config import DataConfig
from distill.data.grasp.antipodal import Gripper, HeightMap, antipodal_grasps
from distill.data.grasp.files import Channels, channels_of, join_channels
from distill.data.grasp.objects import Contour, TabletopObject, make_object, object_split
from distill.data.grasp.sample import GraspSample, make_grasp_sample
from distill.data.grasp.splits import grasp_splits
from distill.data.seeding import generator
from distill.data.splits import Splits

EXTENT = 0.32
"""Meters along the shorter side of an image."""
CLEARANCE_PIXEL = 0.002
"""Meters per pixel of the height map in which clearance for the fingers is checked."""
MAX_GRASPS = 20
"""Largest number of grasps per object."""
GRAIN, ROUGHNESS = 0.006, 0.003
"""Correlated noise, in meters: its correlation length, and its standard deviation."""
GRIPPER = Gripper()
_SUBPIXEL = 4


@dataclass(frozen=True, eq=False)
class Scene:
    """Images of objects on the table, and their grasps."""

    depth: np.ndarray
    """float32 H×W in meters, NaN in holes."""
    rgb: np.ndarray
    """uint8 H×W×3."""
    grasps: np.ndarray
    """float64 N×5 in pixels (see `deploy.tasks.grasp.geometry`); the height is that of the jaws."""
    objects: tuple[int, ...]
    """Numbers of the objects in the catalog."""


@dataclass(frozen=True)
class TabletopReader:
    """The scenes of one split; each is a pure function of (seed, split, index)."""

    split: str
    count: int
    size: tuple[int, int]
    seed: int
    channels: Channels = "depth"

    @property
    def ids(self) -> Sequence[str]:
        """`train-00000`, `train-00001`, …"""
        return [f"{self.split}-{index:05d}" for index in range(self.count)]

    @property
    def objects(self) -> Sequence[str]:
        """The name of each scene, because a scene holds several objects."""
        return self.ids

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> GraspSample:
        if not 0 <= index < self.count:
            raise IndexError(index)
        rng = generator("tabletop", self.seed, self.split, index)
        scene = tabletop_scene(rng, *self.size, object_split(self.seed)[self.split], self.seed)
        name = f"{self.split}-{index:05d}"
        rgb = None if self.channels == "depth" else scene.rgb
        image = join_channels(rgb, None if self.channels == "rgb" else scene.depth, name)
        return make_grasp_sample(image, scene.grasps, id=name, object=name)


def open_tabletop(config: DataConfig, seed: int) -> Splits:
    """Splits of `config.synthetic_counts` scenes of `config.size` pixels; no object is in two splits.

    Raises:
        UserError: the scenes are too small.
    """
    if min(config.size) < 32:
        raise UserError(f"--data.size {config.size}: a tabletop scene needs at least 32 pixels on each side")
    channels = channels_of(config)
    train, val, test = (
        TabletopReader(split, count, config.size, seed, channels)
        for split, count in zip(("train", "val", "test"), config.synthetic_counts, strict=True)
    )
    return grasp_splits("tabletop", channels, train, val, test)


def tabletop_scene(
    rng: np.random.Generator, height: int, width: int, numbers: Sequence[int], seed: int
) -> Scene:
    """One scene with two to five objects; all but the first are decoys.

    Args:
        rng: source of all random numbers.
        height: height in pixels.
        width: width in pixels.
        numbers: the objects to choose from.
        seed: the seed of the catalog.
    """
    extent = np.array((width, height)) * (EXTENT / min(height, width))
    chosen = rng.choice(np.array(numbers), size=min(int(rng.integers(2, 6)), len(numbers)), replace=False)
    first, *others = ((number, _object(seed, number)) for number in chosen.tolist())
    placed = _place(rng, dict([first, *((number, _decoy(rng, item)) for number, item in others)]), extent)
    fine = HeightMap(_heights(placed, extent, CLEARANCE_PIXEL), CLEARANCE_PIXEL)
    metric = [
        antipodal_grasps(_thin_out(contours), fine, GRIPPER, rng, MAX_GRASPS) for _, _, contours in placed
    ]
    pixel = EXTENT / min(height, width)
    heights = _heights(placed, extent, pixel)[:height, :width]
    grasps = _in_pixels(np.concatenate(metric) if metric else np.zeros((0, 4)), pixel)
    depth = _camera(rng, heights, pixel)
    rgb = _colors(rng, placed, heights, pixel)
    return Scene(depth, rgb, grasps, tuple(number for number, _, _ in placed))


Placed = tuple[int, TabletopObject, tuple[Contour, ...]]
"""Number of an object, the object, and its contours in the scene, in meters from the upper left."""


@lru_cache(maxsize=1024)
def _object(seed: int, number: int) -> TabletopObject:
    return make_object(seed, number)


def _decoy(rng: np.random.Generator, item: TabletopObject) -> TabletopObject:
    """An object of the same outline that can hardly be held: too flat for the fingers, or about twice as large."""
    if rng.random() < 0.5:
        return replace(item, height=float(rng.uniform(0.003, 0.009)))
    factor = rng.uniform(1.6, 2.4)
    return replace(item, contours=tuple(factor * contour for contour in item.contours))


def _place(rng: np.random.Generator, items: dict[int, TabletopObject], extent: np.ndarray) -> list[Placed]:
    """Rotate and place objects so that their bounding circles overlap little; one that does not fit is left out."""
    placed: list[Placed] = []
    circles: list[tuple[np.ndarray, float]] = []
    for number, item in items.items():
        margin = min(item.radius * 0.8 + 0.01, extent.min() / 2)
        for _ in range(12):
            at = rng.uniform(margin, extent - margin)
            if all(np.linalg.norm(at - other) > 0.7 * (item.radius + far) for other, far in circles):
                break
        else:
            continue
        angle = rng.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        placed.append((number, item, tuple(contour @ turn + at for contour in item.contours)))
        circles.append((at, item.radius))
    return placed


def _thin_out(contours: tuple[Contour, ...], step: float = 0.004) -> tuple[Contour, ...]:
    """Every n-th point of each contour, so that points are about `step` meters apart."""
    thinned = []
    for contour in contours:
        gap = np.linalg.norm(contour - np.roll(contour, 1, axis=0), axis=1).mean()
        thinned.append(contour[:: max(1, int(step / gap))])
    return tuple(thinned)


def _heights(placed: Sequence[Placed], extent: np.ndarray, pixel: float) -> np.ndarray:
    """Heights of the scene above the table, float32 H×W in meters."""
    columns, rows = np.ceil(extent / pixel - 1e-6).astype(int).tolist()
    heights = np.zeros((rows, columns), np.float32)
    for _, item, contours in placed:
        mask = _filled(contours, heights.shape, pixel)
        top = np.float32(item.height)
        if item.profile == "flat":
            own = mask * top
        else:
            inside = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
            share = np.minimum(inside / (0.6 * inside.max() + 1e-6), 1)
            bulge = np.sqrt(1 - (1 - share) ** 2) if item.profile == "domed" else (share > 0.5)
            own = mask * top * (0.6 + 0.4 * bulge.astype(np.float32))
        np.maximum(heights, own, out=heights)
    return heights


def _filled(contours: tuple[Contour, ...], shape: tuple[int, int], pixel: float) -> np.ndarray:
    """Mask of an object without its holes: uint8 0 or 1."""
    canvas = np.zeros(shape, np.uint8)
    points = [np.round((contour / pixel - 0.5) * 2**_SUBPIXEL).astype(np.int32) for contour in contours]
    cv2.fillPoly(canvas, points, 1, shift=_SUBPIXEL)
    return canvas


def _in_pixels(metric: np.ndarray, pixel: float) -> np.ndarray:
    """Grasps N×5 in pixels from x, y, angle, width in meters."""
    grasps = np.empty((len(metric), 5))
    grasps[:, :2] = metric[:, :2] / pixel - 0.5
    grasps[:, 2] = metric[:, 2]
    grasps[:, 3] = metric[:, 3] / pixel
    grasps[:, 4] = GRIPPER.jaw / pixel
    return grasps


def _camera(rng: np.random.Generator, heights: np.ndarray, pixel: float) -> np.ndarray:
    """The depth that the camera measures: float32 H×W in meters, NaN in holes."""
    shape = heights.shape
    distance = np.float32(rng.uniform(0.6, 0.8))
    tilt = np.tan(np.radians(rng.uniform(-2, 2, 2))).astype(np.float32) * np.float32(pixel)
    y, x = np.ogrid[: shape[0], : shape[1]]
    depth = distance - heights + (x * tilt[0] + y * tilt[1]).astype(np.float32)
    noise = rng.standard_normal(shape, dtype=np.float32)
    depth += noise * (np.float32(0.0012) * (depth / np.float32(0.7)) ** 2)
    shared = cv2.GaussianBlur(rng.standard_normal(shape, dtype=np.float32), (0, 0), GRAIN / pixel)
    depth += shared * (np.float32(ROUGHNESS) / shared.std())
    depth = np.rint(depth * 1000) * np.float32(1e-3)
    depth[_holes(rng, heights, pixel)] = np.nan
    return depth


def _holes(rng: np.random.Generator, heights: np.ndarray, pixel: float) -> np.ndarray:
    """Where nothing is measured: at steep edges, in the projector's shadow on one side of them, and in spots."""
    fall = np.zeros_like(heights)
    side = int(rng.choice([-1, 1]))
    fall[:, 1:] = np.maximum(0, -side * np.diff(heights, axis=1))
    reach = max(1, round(float(rng.uniform(0.0, 0.008)) / pixel))
    # A step of height h casts a shadow of about 0.1 h (the baseline divided by the distance).
    shadow = cv2.blur((fall > 0.015).astype(np.float32), (2 * reach + 1, 1)) > 0
    edges = cv2.morphologyEx(heights, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0.015
    holes = shadow | (edges & (rng.random(heights.shape, dtype=np.float32) < 0.35))
    spots = np.zeros(heights.shape, np.uint8)
    for _ in range(int(rng.integers(0, 6))):
        at = rng.uniform((0, 0), heights.shape[::-1]).astype(int).tolist()
        radii = np.ceil(rng.uniform(0.002, 0.01, 2) / pixel).astype(int).tolist()
        cv2.ellipse(spots, at, radii, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    return holes | (spots > 0)


def _colors(
    rng: np.random.Generator, placed: Sequence[Placed], heights: np.ndarray, pixel: float
) -> np.ndarray:
    """The color image of the scene, lit from one side: uint8 H×W×3."""
    picture = np.empty((*heights.shape, 3), np.float32)
    picture[...] = rng.uniform(90, 220, 3)
    for _, item, contours in placed:
        picture[_filled(contours, heights.shape, pixel) > 0] = item.color
    slope = cv2.Sobel(heights, cv2.CV_32F, 1, 0, scale=1 / (8 * pixel))
    light = 1 - np.float32(0.35) * np.clip(slope, -1, 1) + np.float32(1.5) * heights
    picture *= light[..., None]
    picture += rng.standard_normal((*heights.shape, 1), dtype=np.float32) * 6
    return np.clip(picture, 0, 255, out=picture).astype(np.uint8)
