"""Show where a model is wrong: image, label, prediction and error map side by side."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deploy.bundle.manifest import ClassInfo
from deploy.visualize import colorize, render

RIGHT, FALSE_ALARM, MISSED = (40, 170, 70), (220, 40, 40), (40, 90, 230)
"""Colors of true positives (green), false positives (red) and false negatives (blue)."""
_GAP, _MARGIN, _CAPTION, _LETTER = 4, 2, 18, 12
_DIM = 3
"""The image behind an error map is divided by this."""


def error_map(
    image: np.ndarray,
    label: np.ndarray,
    prediction: np.ndarray,
    valid: np.ndarray,
    positive: int | None,
) -> np.ndarray:
    """Draw errors in color over the darkened image.

    Args:
        image: H×W×C.
        label: class ids H×W.
        prediction: class ids H×W.
        valid: bool H×W; other pixels are black.
        positive: id of a class whose true positives, false positives and false negatives are drawn; None: all wrong
            pixels in red.

    Returns:
        uint8 H×W×3.
    """
    picture = render(image) // _DIM
    if positive is None:
        picture[label != prediction] = FALSE_ALARM
    else:
        is_class, found = label == positive, prediction == positive
        picture[is_class & found] = RIGHT
        picture[~is_class & found] = FALSE_ALARM
        picture[is_class & ~found] = MISSED
    picture[~valid] = 0
    return picture


def error_picture(
    image: np.ndarray,
    label: np.ndarray,
    valid: np.ndarray,
    predictions: Sequence[tuple[str, np.ndarray]],
    classes: Sequence[ClassInfo],
    positive: int | None,
) -> np.ndarray:
    """Draw a row of captioned panels: image, label, and for each prediction its labels and its `error_map`.

    Args:
        image: H×W×C.
        label: class ids H×W.
        valid: bool H×W: pixels with a valid label.
        predictions: name and class ids H×W of each prediction.
        classes: colors of the classes.
        positive: as for `error_map`.

    Returns:
        The picture, uint8, three channels; a small image is repeated pixel by pixel until its captions fit.
    """
    panels = [("image", render(image)), ("label", colorize(np.where(valid, label, 255), classes))]
    for name, prediction in predictions:
        panels.append((name, colorize(prediction, classes)))
        panels.append(("errors", error_map(image, label, prediction, valid, positive)))
    font = ImageFont.load_default(_LETTER)
    widest = max(font.getlength(text) for text, _ in panels)
    times = max(1, math.ceil((widest + 2 * _MARGIN) / image.shape[1]))
    return np.concatenate([_captioned(text, panel, times, font) for text, panel in panels], axis=1)


def _captioned(text: str, panel: np.ndarray, times: int, font: Any) -> np.ndarray:
    """The panel, enlarged, on a white background, with its caption above and a gap on the right."""
    panel = panel.repeat(times, axis=0).repeat(times, axis=1)
    height, width = panel.shape[:2]
    sheet = Image.new("RGB", (width + _GAP, height + _CAPTION), (255, 255, 255))
    sheet.paste(Image.fromarray(panel), (0, _CAPTION))
    ImageDraw.Draw(sheet).text((_MARGIN, _CAPTION // 2), text, fill=(30, 30, 30), font=font, anchor="lm")
    return np.asarray(sheet)
