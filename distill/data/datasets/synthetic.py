"""Built-in synthetic data: two-channel C-band SAR scenes of floods.

A scene has fractal terrain, a meandering river, and a flood that fills the low ground. Water is dark because a smooth
surface reflects the radar away, but brightness alone is ambiguous: bare fields, roads, airstrips and radar shadow are
dark land; wind roughens open water in VV; flooded trees are brighter than dry ones; and the angle of incidence shifts
all levels. Separating water from land takes both channels and the spatial context.

The levels are typical sigma nought of Sentinel-1 near 38° of incidence in dB, rounded, after Ulaby & Dobson, "Handbook
of Radar Scattering Statistics for Terrain" (1989), Twele et al. (2016, doi:10.1080/01431161.2016.1192304) for water
and its look-alikes, and Tsyganskaya et al. (2018, doi:10.3390/rs10081286) for the double bounce in flooded plants.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from deploy.bundle.manifest import ClassInfo
from deploy.errors import UserError
from distill.config import DataConfig
from distill.data.sample import Sample, make_sample
from distill.data.seeding import generator
from distill.data.splits import Splits

CLASSES = (ClassInfo("land", (142, 125, 87)), ClassInfo("water", (38, 110, 200)))
CHANNELS = ("VV", "VH")

Levels = tuple[float, float]
"""Backscatter in dB: VV, VH."""

# Dry land, from dense trees over crops to bare soil: a smooth field picks a place on this scale.
LAND_SCALE: tuple[Levels, ...] = ((-7.0, -12.5), (-9.5, -15.5), (-11.5, -18.0), (-14.5, -21.5))
CALM_WATER: Levels = (-20.5, -27.0)
ROUGH_WATER_RISE: Levels = (8.5, 2.5)  # fresh wind; ripples affect VV far more than VH
FLOODED_TREES: Levels = (-4.5, -13.5)
SMOOTH_FIELD: Levels = (-17.5, -23.0)
PAVED: Levels = (-19.5, -25.0)  # roads and airstrips
SHADOW: Levels = (-21.5, -26.5)
# Noise-equivalent sigma nought; Sentinel-1 specifies better than -22 dB, and reaches -30 dB in mid-swath.
NOISE_FLOOR = -29.0
LAND_SLOPE, WATER_SLOPE = -0.13, -0.45  # dB per degree of incidence
LOOKS = (3.5, 5.0)  # equivalent number of looks: GRD IW has 4.4
FIELD_SPREAD = 1.0  # dB between neighboring fields of one land cover


@dataclass(frozen=True)
class SyntheticReader:
    """The scenes of one split; each is a pure function of (seed, split, index)."""

    split: str
    count: int
    size: tuple[int, int]
    seed: int

    @property
    def ids(self) -> Sequence[str]:
        """`train-00000`, `train-00001`, …"""
        return [f"{self.split}-{index:05d}" for index in range(self.count)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(index)
        rng = generator("synthetic", self.seed, self.split, index)
        image, water = flood_scene(rng, *self.size)
        return make_sample(
            image, water.astype(np.uint8), id=f"{self.split}-{index:05d}", num_classes=len(CLASSES)
        )


def open_synthetic(config: DataConfig, seed: int) -> Splits:
    """Splits of `config.synthetic_counts` scenes of `config.size` pixels, drawn from disjoint seeds.

    Raises:
        UserError: the scenes are too small.
    """
    if min(config.size) < 16:
        raise UserError(f"--data.size {config.size}: a synthetic scene needs at least 16 pixels on each side")
    train, val, test = (
        SyntheticReader(split, count, config.size, seed)
        for split, count in zip(("train", "val", "test"), config.synthetic_counts, strict=True)
    )
    return Splits("synthetic", CLASSES, CHANNELS, optical=False, train=train, val=val, test=test)


def flood_scene(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """One scene: its image, float32 H×W×2 (VV and VH in dB, NaN beyond the swath), and its water, bool H×W."""
    shape = (height, width)
    cover = _to_uniform(_fractal(rng, shape, beta=3.0))  # 0 = trees … 1 = bare soil, uniformly distributed
    water, depth = _flood(rng, shape)
    levels = _land(rng, shape, cover)
    _place_lookalikes(rng, levels)
    levels[water] = CALM_WATER
    _roughen(rng, levels, water)
    levels[_flooded_trees(water, depth, cover)] = FLOODED_TREES
    _tilt(rng, levels, water)
    image = _radar(rng, levels)
    image[_beyond_swath(rng, shape)] = np.nan
    return image, water


def _fractal(rng: np.random.Generator, shape: tuple[int, int], beta: float) -> np.ndarray:
    """Random float32 H×W field with power spectrum 1/f^beta, mean 0 and standard deviation 1; it is periodic."""
    amplitude = _spectrum(shape, beta)
    noise = rng.standard_normal((*amplitude.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    field = np.fft.irfft2(noise * amplitude, s=shape).astype(np.float32)
    field -= field.mean()
    field /= field.std() + np.float32(1e-12)
    return field


@lru_cache(maxsize=16)
def _spectrum(shape: tuple[int, int], beta: float) -> np.ndarray:
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])
    frequency[0, 0] = np.inf
    return (frequency ** (-beta / 2)).astype(np.float32)


def _to_uniform(field: np.ndarray) -> np.ndarray:
    """Map a Gaussian field to a uniform one in 0..1 (by a logistic approximation of its distribution function)."""
    return 1 / (1 + np.exp(np.float32(-1.702) * field))


def _flood(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Water, bool H×W, and its depth, float32 H×W (arbitrary unit, positive below the surface)."""
    terrain = _fractal(rng, shape, beta=rng.choice([2.6, 3.0, 3.4]))
    river = np.zeros(shape, bool)
    if rng.random() < 0.75:
        distance = _river_distance(rng, shape)
        channel = rng.uniform(0.012, 0.035) * min(shape)
        terrain -= rng.uniform(1.0, 2.0) * np.exp(-((distance / (6 * channel)) ** 2))
        river = distance < channel
    # Skewed towards small floods: a few scenes are almost dry, and few are half flooded.
    share = 0.03 + 0.45 * rng.beta(1.5, 2.0)
    depth = np.quantile(terrain, share) - terrain
    return (depth > 0) | river, depth


def _river_distance(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Distance in pixels, float32 H×W, to a meandering line across the scene."""
    along = np.linspace(-0.8, 0.8, 200)
    across = rng.uniform(-0.25, 0.25) + sum(
        rng.uniform(0.2, 1.0) * 0.12 / n * np.sin(2 * np.pi * n * along + rng.uniform(0, 2 * np.pi))
        for n in (1, 2, 3, 5)
    )
    points = _rotate(np.stack([along, across], axis=1), rng.uniform(0, np.pi), shape)
    canvas = np.ones(shape, np.uint8)
    cv2.polylines(canvas, [points.astype(np.int32)], isClosed=False, color=0)
    # The line can miss a very narrow scene; then all distances would be the largest float.
    return np.minimum(cv2.distanceTransform(canvas, cv2.DIST_L2, 3), sum(shape))


def _rotate(points: np.ndarray, angle: float, shape: tuple[int, int]) -> np.ndarray:
    """Rotate points N×2, in units of the longer side from the scene's center, and convert them to pixel coordinates."""
    cos, sin = np.cos(angle), np.sin(angle)
    rotated = points @ np.array([[cos, sin], [-sin, cos]])
    return rotated * max(shape) + np.array([shape[1] / 2, shape[0] / 2])


def _land(rng: np.random.Generator, shape: tuple[int, int], cover: np.ndarray) -> np.ndarray:
    """Backscatter of dry land, float32 H×W×2 in dB: land cover, fields (some smooth and dark), and fine texture."""
    steps = np.linspace(0, 1, len(LAND_SCALE))
    levels = np.stack([np.interp(cover, steps, [level[c] for level in LAND_SCALE]) for c in (0, 1)], axis=2)
    levels = levels.astype(np.float32)
    fields = _parcels(rng, shape)
    count = int(fields.max()) + 1
    levels += rng.normal(0, FIELD_SPREAD, count).astype(np.float32)[fields][..., None]
    smooth = (rng.random(count) < rng.uniform(0.0, 0.35))[fields] & (cover > 0.55)
    levels[smooth] = SMOOTH_FIELD
    levels += 0.7 * _fractal(rng, shape, beta=1.5)[..., None]
    return levels


def _parcels(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Number of the field at each pixel, int H×W: a rotated grid of rectangles."""
    angle = rng.uniform(0, np.pi / 2)
    sides = rng.uniform(0.07, 0.2, size=2) * max(shape)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    row = np.floor((x * np.cos(angle) + y * np.sin(angle)) / sides[0]).astype(np.int64)
    column = np.floor((y * np.cos(angle) - x * np.sin(angle)) / sides[1]).astype(np.int64)
    row, column = row - row.min(), column - column.min()
    return row * (column.max() + 1) + column


def _place_lookalikes(rng: np.random.Generator, levels: np.ndarray) -> None:
    """Draw dark land into `levels`: roads, sometimes an airstrip, and radar shadow on slopes."""
    shape = (levels.shape[0], levels.shape[1])
    paved = np.zeros(shape, np.uint8)
    for _ in range(rng.integers(0, 4)):
        _line(rng, paved, length=1.6, width=rng.uniform(0.008, 0.016))
    if rng.random() < 0.3:
        _line(rng, paved, length=rng.uniform(0.25, 0.45), width=rng.uniform(0.025, 0.05))
    levels[paved > 0] = PAVED
    if rng.random() < 0.5:
        relief = _fractal(rng, shape, beta=3.2)
        slope = np.diff(relief, axis=1, append=relief[:, -1:])  # the radar looks along the rows
        rugged = _fractal(rng, shape, beta=3.5) > 0.4  # mountains fill only a part of the scene
        levels[rugged & (slope < np.quantile(slope, 0.15))] = SHADOW


def _line(rng: np.random.Generator, canvas: np.ndarray, length: float, width: float) -> None:
    """Draw a straight strip; length and width in units of the longer side."""
    shape = (canvas.shape[0], canvas.shape[1])
    ends = np.array([[-length / 2, 0.0], [length / 2, 0.0]])
    ends = _rotate(ends, rng.uniform(0, np.pi), shape) + rng.uniform(-0.4, 0.4, size=2) * max(shape)
    (x0, y0), (x1, y1) = ends.round().astype(int).tolist()
    cv2.line(canvas, (x0, y0), (x1, y1), color=1, thickness=max(1, round(width * max(shape))))


def _roughen(rng: np.random.Generator, levels: np.ndarray, water: np.ndarray) -> None:
    """Brighten open water by up to `ROUGH_WATER_RISE`, in gusts of wind, in half of the scenes."""
    if rng.random() < 0.5:
        gusts = np.clip(
            _fractal(rng, (water.shape[0], water.shape[1]), beta=3.0) + rng.uniform(-1.5, 0.5), 0, 1
        )
        levels += (gusts * water)[..., None] * np.array(ROUGH_WATER_RISE, np.float32)


def _flooded_trees(water: np.ndarray, depth: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Where water stands among trees, bool H×W: shallow parts of the flood under dense cover."""
    shallow = (depth > 0) & (depth < 0.25)
    return water & shallow & (cover < 0.15)


def _tilt(rng: np.random.Generator, levels: np.ndarray, water: np.ndarray) -> None:
    """Lower backscatter with the angle of incidence, which grows along the rows; the slope is steeper on water."""
    start, span = rng.uniform(31, 43), rng.uniform(0, 3)
    degrees = np.linspace(start, start + span, levels.shape[1], dtype=np.float32) - 38
    levels += (degrees * np.where(water, np.float32(WATER_SLOPE), np.float32(LAND_SLOPE)))[..., None]


def _radar(rng: np.random.Generator, levels: np.ndarray) -> np.ndarray:
    """The radar image of `levels`, with resolution, noise floor and speckle: float32 H×W×2 in dB."""
    power = np.exp(levels * np.float32(np.log(10) / 10))
    power = cv2.GaussianBlur(power, (0, 0), sigmaX=0.7) + np.float32(10 ** (NOISE_FLOOR / 10))
    looks = rng.uniform(*LOOKS)
    speckle = rng.standard_gamma(looks, size=levels.shape, dtype=np.float32) / np.float32(looks)
    return np.float32(10) * np.log10(np.maximum(power * speckle, np.float32(1e-6)))


def _beyond_swath(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Pixels beyond the slanted edge of the swath, bool H×W; none in six of ten scenes."""
    if rng.random() < 0.6:
        return np.zeros(shape, bool)
    angle, share = rng.uniform(0, 2 * np.pi), rng.uniform(0.04, 0.25)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    ramp = x * np.cos(angle) + y * np.sin(angle)
    return ramp < np.quantile(ramp, share)
