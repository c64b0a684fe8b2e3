"""Pictures of predictions."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deploy.bundle.manifest import ClassInfo
from deploy.errors import UserError

_ROW, _MARGIN, _SWATCH = 20, 8, 12
"""Sizes in the legend, in pixels: line height, margin, side of the colored square."""
_LETTER = 12
"""Font size in pixels."""
_PAPER, _INK = 255, (30, 30, 30)


_SAFE = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)),
    *((0, 114, 178), (213, 94, 0), (204, 121, 167), (200, 200, 200)),
)
"""Eight colors that people with a color vision deficiency tell apart (Okabe and Ito, "Color Universal Design", 2008),
with gray for their black, which means no data here."""
_TONES = (1.0, 0.55, 0.3)
"""Brightness of the first eight classes, the next, and those after them."""


def safe_colors(classes: Sequence[ClassInfo]) -> tuple[ClassInfo, ...]:
    """The classes in colors that people with a color vision deficiency tell apart.

    Raises:
        UserError: there are more than 24, for which there are no such colors.
    """
    most = len(_SAFE) * len(_TONES)
    if len(classes) > most:
        raise UserError(
            f"{len(classes)} classes: only {most} have colors that are safe for color-blind people"
        )
    colors = []
    for index in range(len(classes)):
        red, green, blue = _SAFE[index % len(_SAFE)]
        tone = _TONES[index // len(_SAFE)]
        colors.append((round(tone * red), round(tone * green), round(tone * blue)))
    return tuple(ClassInfo(info.name, color) for info, color in zip(classes, colors, strict=True))


def palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """Return `count` RGB colors that are easy to tell apart, always the same; never black, which means no data."""
    golden = 0.618033988749895  # multiples of the golden ratio spread evenly over the hues, for any count
    tones = ((0.75, 0.9), (0.55, 1.0), (0.9, 0.65))  # saturation and value
    colors = []
    for index in range(count):
        rgb = colorsys.hsv_to_rgb((0.6 + golden * index) % 1, *tones[index % len(tones)])
        colors.append((round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2])))
    return tuple(colors)


def colorize(labels: np.ndarray, classes: Sequence[ClassInfo]) -> np.ndarray:
    """Map label ids uint8 H×W to colors, RGB uint8 H×W×3; an id that is no class becomes black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(classes)] = [info.color for info in classes]
    return table[labels]


def overlay(
    image: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[ClassInfo],
    legend: bool = True,
    opacity: float = 0.5,
) -> np.ndarray:
    """Blend the colors of a label map into its image.

    Args:
        image: H×W×C, as `render` takes it.
        labels: label ids uint8 H×W; pixels without data stay unchanged.
        classes: name and color of each label id.
        legend: add a panel at the right with the classes in the picture and their share of the pixels with data. The
            result is then wider than the image, and taller where the list is.
        opacity: weight of the class colors, from 0 to 1.

    Returns:
        RGB uint8 H×W×3.
    """
    ids = Image.fromarray(labels)
    weight = ids.point([round(255 * opacity)] * len(classes) + [0] * (256 - len(classes)))
    ids.putpalette([value for info in classes for value in info.color])
    picture = np.array(Image.composite(ids.convert("RGB"), Image.fromarray(render(image)), weight))
    return _beside(picture, _legend(labels, classes)) if legend else picture


def render(image: np.ndarray) -> np.ndarray:
    """Convert any image H×W×C to RGB uint8 H×W×3: its first three channels, or the first as gray if it has fewer.

    Dtypes other than uint8 are stretched from their 2nd to their 98th percentile; pixels that are not finite are black.
    """
    shown = image[..., :3] if image.shape[2] >= 3 else image[..., :1]
    if shown.dtype != np.uint8:
        shown = _stretch(shown.astype(np.float32))
    return np.ascontiguousarray(np.broadcast_to(shown, (*image.shape[:2], 3)))


def side_by_side(image: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """An image H×W×C, as `render` draws it, to the left of a picture uint8 H×W×3."""
    return _beside(render(image), picture)


def shares(labels: np.ndarray, class_count: int) -> np.ndarray:
    """Share of each class among the pixels labeled with a class: float64 of `class_count` values; zeros without any."""
    counts = np.bincount(labels.ravel(), minlength=class_count)[:class_count]
    return counts / max(1, counts.sum())


def _stretch(values: np.ndarray) -> np.ndarray:
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, np.uint8)
    low, high = np.percentile(values[finite], (2, 98))
    scaled = (values - low) / max(high - low, np.finfo(np.float32).tiny)
    return (255 * np.where(finite, scaled, 0).clip(0, 1)).astype(np.uint8)


def _legend(labels: np.ndarray, classes: Sequence[ClassInfo]) -> np.ndarray:
    found = zip(classes, shares(labels, len(classes)), strict=True)
    rows = [(info.color, f"{info.name} {100 * share:.1f} %") for info, share in found if share > 0]
    if (labels >= len(classes)).any():
        rows.append(((0, 0, 0), "no data"))
    font = ImageFont.load_default(_LETTER)
    text = round(max(font.getlength(line) for _, line in rows))
    size = (text + _SWATCH + 3 * _MARGIN, len(rows) * _ROW + 2 * _MARGIN)
    panel = Image.new("RGB", size, (_PAPER, _PAPER, _PAPER))
    draw = ImageDraw.Draw(panel)
    for index, (color, line) in enumerate(rows):
        middle = _MARGIN + index * _ROW + _ROW // 2
        top = middle - _SWATCH // 2
        draw.rectangle((_MARGIN, top, _MARGIN + _SWATCH - 1, top + _SWATCH - 1), fill=color)
        draw.text((2 * _MARGIN + _SWATCH, middle), line, fill=_INK, font=font, anchor="lm")
    return np.asarray(panel)


def _beside(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Both pictures side by side at the top of one sheet."""
    height, width = max(len(left), len(right)), left.shape[1] + right.shape[1]
    sheet = np.full((height, width, 3), _PAPER, np.uint8)
    sheet[: len(left), : left.shape[1]] = left
    sheet[: len(right), left.shape[1] :] = right
    return sheet
