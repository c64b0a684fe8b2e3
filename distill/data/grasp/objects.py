"""The built-in catalog of tabletop objects: outlines and heights, each a pure function of (seed, number).

There are eight families, from boxes to shapes as irregular as a splash. Sizes are those of household objects that a
parallel gripper can hold in at least one direction.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from distill.data.seeding import generator

CATALOG = 480
"""Number of different objects."""
SHARES = (0.7, 0.1, 0.2)
"""Shares of the objects in training, validation and test; no object is in two splits."""

Contour = np.ndarray
"""float64 P×2 in meters around the object's center (x right, y down): P points on a closed curve."""


@dataclass(frozen=True, eq=False)
class TabletopObject:
    """An object on the table."""

    contours: tuple[Contour, ...]
    """Its outline, then those of its holes."""
    height: float
    """Height of its highest point above the table, in meters."""
    profile: Literal["flat", "domed", "stepped"]
    color: tuple[int, int, int]

    @property
    def radius(self) -> float:
        """Radius of its bounding circle, in meters."""
        return float(np.linalg.norm(self.contours[0], axis=1).max())


def object_split(seed: int) -> dict[str, tuple[int, ...]]:
    """Numbers of the objects in each split."""
    order = generator("tabletop objects", seed).permutation(CATALOG)
    first, second = (round(CATALOG * share) for share in np.cumsum(SHARES)[:2])
    parts = {"train": order[:first], "val": order[first:second], "test": order[second:]}
    return {name: tuple(sorted(part.tolist())) for name, part in parts.items()}


def make_object(seed: int, number: int) -> TabletopObject:
    """Object `number`, 0..CATALOG-1; families alternate, so any eight consecutive numbers contain all of them."""
    rng = generator("tabletop object", seed, number)
    contours = FAMILIES[number % len(FAMILIES)](rng)
    middle = (contours[0].min(axis=0) + contours[0].max(axis=0)) / 2
    return TabletopObject(
        contours=tuple(contour - middle for contour in contours),
        height=float(rng.uniform(0.015, 0.035)),
        profile=rng.choice(["flat", "flat", "domed", "stepped"]).item(),  # pyright: ignore[reportArgumentType]
        color=tuple(rng.integers(40, 230, 3).tolist()),
    )


def _box(rng: np.random.Generator) -> list[Contour]:
    return [_rectangle(rng.uniform(0.015, 0.07), rng.uniform(0.03, 0.14))]


def _disc(rng: np.random.Generator) -> list[Contour]:
    wide = rng.uniform(0.025, 0.085)
    return [_ellipse(wide, wide * rng.uniform(1.0, 1.7))]


def _ring(rng: np.random.Generator) -> list[Contour]:
    """A cup or a roll of tape seen from above; some have a handle."""
    wide = rng.uniform(0.06, 0.095)
    outer = _ellipse(wide, wide)
    if rng.random() < 0.5:  # pull the points within the handle's angle outwards
        angle = np.arctan2(outer[:, 1], outer[:, 0])
        outer = np.where((np.abs(angle) < 0.22)[:, None], outer * rng.uniform(1.5, 1.8), outer)
    inner = wide * rng.uniform(0.45, 0.75)
    return [outer, _ellipse(inner, inner)]


def _angled(rng: np.random.Generator) -> list[Contour]:
    """The shape of an L, T, U or plus sign."""
    a, b = rng.uniform(0.08, 0.14, 2)
    t = rng.uniform(0.018, 0.035)
    bars = {
        "L": [(0, 0, t, a), (0, 0, b, t)],
        "T": [((b - t) / 2, 0, t, a), (0, 0, b, t)],
        "U": [(0, 0, t, a), (b - t, 0, t, a), (0, 0, b, t)],
        "+": [((b - t) / 2, 0, t, a), (0, (a - t) / 2, b, t)],
    }
    return [_union(bars[rng.choice(list(bars)).item()])]


def _bottle(rng: np.random.Generator) -> list[Contour]:
    """A lying bottle: a body and a neck, with a shoulder between them."""
    long, wide = rng.uniform(0.1, 0.18), rng.uniform(0.035, 0.07)
    neck, shoulder = wide * rng.uniform(0.25, 0.6), long * rng.uniform(0.5, 0.75)
    half = [(0, wide / 2), (shoulder, wide / 2), (shoulder + 0.15 * long, neck / 2), (long, neck / 2)]
    return [_densify(np.array([*half, *[(x, -y) for x, y in reversed(half)]]))]


def _tool(rng: np.random.Generator) -> list[Contour]:
    """A handle and a shaft, like a screwdriver or brush, in half of the cases with a head across it, like a hammer."""
    handle, thick = rng.uniform(0.06, 0.09), rng.uniform(0.018, 0.032)
    shaft, thin = rng.uniform(0.06, 0.1), rng.uniform(0.008, 0.014)
    bars = [(0, -thick / 2, handle, thick), (handle, -thin / 2, shaft, thin)]
    if rng.random() < 0.5:
        head = rng.uniform(0.04, 0.08)
        bars.append((handle + shaft, -head / 2, rng.uniform(0.015, 0.03), head))
    return [_union(bars)]


def _wavy(rng: np.random.Generator) -> list[Contour]:
    """A star or a splash: a circle whose radius is a short Fourier series."""
    angle = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    radius = np.ones_like(angle)
    for n in range(2, 7):
        radius += rng.uniform(0.02, 0.3) / n * np.sin(n * angle + rng.uniform(0, 2 * np.pi))
    radius *= rng.uniform(0.022, 0.045) / radius.mean()
    return [np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)]


def _banana(rng: np.random.Generator) -> list[Contour]:
    """A bent strip that tapers to its ends."""
    bend, length = rng.uniform(0.8, 2.0), rng.uniform(0.11, 0.17)
    turn = np.linspace(-bend / 2, bend / 2, 40)
    half = rng.uniform(0.012, 0.022) * (0.35 + 0.65 * np.cos(turn / bend * 2.6))
    radius = length / bend
    sides = [
        np.stack([(radius + sign * half) * np.sin(turn), (radius + sign * half) * np.cos(turn)], axis=1)
        for sign in (1, -1)
    ]
    return [np.concatenate([sides[0], sides[1][::-1]])]


FAMILIES: tuple[Callable[[np.random.Generator], list[Contour]], ...] = (
    _box,
    _disc,
    _ring,
    _angled,
    _bottle,
    _tool,
    _wavy,
    _banana,
)


def _rectangle(wide: float, long: float) -> Contour:
    return _densify(np.array([(0, 0), (wide, 0), (wide, long), (0, long)]))


def _ellipse(wide: float, long: float) -> Contour:
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return np.stack([wide / 2 * np.cos(angle), long / 2 * np.sin(angle)], axis=1)


def _union(bars: list[tuple[float, float, float, float]]) -> Contour:
    """The outline of touching axis-aligned rectangles (x, y, width, height), traced in a half-millimeter raster."""
    scale, margin = 2000.0, 4
    origin = np.min([bar[:2] for bar in bars], axis=0)
    far = np.max([(x + w, y + h) for x, y, w, h in bars], axis=0)
    width, height = (np.ceil((far - origin) * scale).astype(int) + 2 * margin).tolist()
    canvas = np.zeros((height, width), np.uint8)
    for x, y, w, h in bars:
        left, top = np.round((np.array((x, y)) - origin) * scale).astype(int) + margin
        canvas[top : top + round(h * scale), left : left + round(w * scale)] = 1
    (outline, *_), _ = cv2.findContours(canvas, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return _densify((outline[:, 0].astype(np.float64) - margin) / scale + origin)


def _densify(corners: Contour, step: float = 0.004) -> Contour:
    """Points at most `step` meters apart along a polygon, including its corners."""
    parts = []
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        count = max(1, int(np.ceil(np.linalg.norm(end - start) / step)))
        parts.append(start + (end - start) * (np.arange(count) / count)[:, None])
    return np.concatenate(parts)
