"""Where a model is wrong: image, label, prediction and map of errors side by side."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deploy.bundle.manifest import ClassInfo
from deploy.visualize import colorize, render

RIGHT, FALSE_ALARM, MISSED = (40, 170, 70), (220, 40, 40), (40, 90, 230)
"""Colors of true positives (green), false positives (red) and false negatives (blue)."""
_GAP, _CAPTION, _LETTER = 4, 18, 12
_DIM = 3
"""By how much the image behind an error map is darkened."""


def error_map(
    image: np.ndarray,
    label: np.ndarray,
    prediction: np.ndarray,
    valid: np.ndarray,
    positive: int | None,
) -> np.ndarray:
    """uint8 H×W×3: errors in color over the darkened image H×W×C; black where not `valid`.

    With `positive`, an id: pixels of that class found, falsely predicted and missed. With None: wrong pixels, in red.
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
    """uint8 of one row: image, label, and for each named prediction its labels and its `error_map`, with captions."""
    panels = [("image", render(image)), ("label", colorize(np.where(valid, label, 255), classes))]
    for name, prediction in predictions:
        panels.append((name, colorize(prediction, classes)))
        panels.append(("errors", error_map(image, label, prediction, valid, positive)))
    return np.concatenate([_captioned(text, panel) for text, panel in panels], axis=1)


def _captioned(text: str, panel: np.ndarray) -> np.ndarray:
    """The panel on white with its caption above and a gap at the right."""
    height, width = panel.shape[:2]
    sheet = Image.new("RGB", (width + _GAP, height + _CAPTION), (255, 255, 255))
    sheet.paste(Image.fromarray(panel), (0, _CAPTION))
    font = ImageFont.load_default(_LETTER)
    ImageDraw.Draw(sheet).text((2, _CAPTION // 2), text, fill=(30, 30, 30), font=font, anchor="lm")
    return np.asarray(sheet)
