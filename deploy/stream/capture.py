"""Frames of a video file, a camera or a network stream, decoded by OpenCV (an optional dependency)."""

import os
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np

from deploy.errors import UserError, warn

TIMEOUT_MS = 5000
"""How long opening a network stream, and each read of it, may take."""
WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each attempt to connect again to a network stream that was lost."""
PAUSE = 0.5
"""Longest time in which a waiting source cannot be stopped."""
SPARE = 1
"""Frames by which the number in a file's header may be too large without a warning: some containers round it."""


@dataclass(frozen=True, eq=False)
class Frame:
    """An image of a source."""

    index: int
    """Position in the source."""
    seconds: float
    """Time stamp."""
    where: str
    """Source and position, for messages."""
    image: np.ndarray
    """H×W×C."""
    known: np.ndarray | None = None
    """bool H×W: pixels with data; None where only the pixels themselves say so."""


class Truncated(RuntimeWarning):
    """A source has ended before it should."""


def video_frames(target: str | int, name: str, live: bool) -> Generator[Frame | None, None, None]:
    """Decode frames until the end. A network stream that is lost is connected to again, with a warning.

    Args:
        target: path, URL or number of a camera, as OpenCV takes it.
        name: of the source, for messages.
        live: it has no end of its own, so time stamps count from its opening.

    Yields:
        RGB frames uint8 H×W×3; None every half second while it waits to connect again. Closing the generator releases
        the device.

    Raises:
        UserError: OpenCV is missing or cannot open it.
        Truncated: after the last frame, if a file has fewer than its header says, or a live source has stopped.
    """
    cv2 = import_opencv()
    capture, start = _open(cv2, target), monotonic()
    try:
        if not capture.isOpened():
            raise UserError(f"{name}: OpenCV cannot open it; {_remedy(target)}")
        announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        index = 0
        while True:
            read, image = capture.read()
            if not read and live and index and _is_url(target):
                warn(f"{name}: lost after {index} frames; connecting again")
                capture.release()
                capture, image = yield from _connected_again(cv2, target)
                read = image is not None
            if not read:
                break
            seconds = monotonic() - start if live else capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            yield Frame(
                index, seconds, f"{name}, frame {index}", cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image)
            )
            index += 1
            del image
    finally:
        capture.release()
    if live:
        raise Truncated(f"{name}: sends no more frames, after {index}")
    if index == 0:
        raise UserError(
            f"{name}: no frame of it can be decoded; is it damaged, or of a codec that OpenCV lacks?"
        )
    if index + SPARE < announced:
        raise Truncated(
            f"{name}: ended after {index} frames, its header says {announced}; it seems truncated"
        )


def count_frames(path: Path) -> int:
    """How many frames a video file has by its header; 0 if it cannot be opened."""
    return max(0, int(_ask(str(path), "CAP_PROP_FRAME_COUNT")))


def ask_rate(target: str | int) -> float:
    """How many frames per second a video has by its header; 0 if it cannot be opened or does not tell."""
    return _ask(target, "CAP_PROP_FPS")


def _ask(target: str | int, name: str) -> float:
    """One of OpenCV's properties; 0 if the target cannot be opened."""
    cv2 = import_opencv()
    capture = _open(cv2, target)
    try:
        return float(capture.get(getattr(cv2, name))) if capture.isOpened() else 0.0
    finally:
        capture.release()


def import_opencv() -> Any:
    """Import OpenCV, an optional dependency; `UserError` where it cannot be imported."""
    # Its FFmpeg prints lines of its own about files that it cannot open; set the variable to see them.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "8")
    try:
        import cv2
    except (ImportError, OSError) as error:  # OSError: it is installed, but lacks a library that it loads
        hint = "pip install 'edgedistill[video]'"
        raise UserError(f"opencv: cannot be imported ({error}), and videos need it; {hint}") from error
    return cv2


def _is_url(target: str | int) -> bool:
    return isinstance(target, str) and "://" in target


def _connected_again(cv2: Any, target: str | int) -> Generator[None, None, tuple[Any, np.ndarray | None]]:
    """A new capture of the target and its first frame, None if no attempt succeeds; yields while it waits."""
    capture = None
    for seconds in WAITS:
        for _ in range(round(seconds / PAUSE)):
            sleep(PAUSE)
            yield None
        capture = _open(cv2, target)
        read, image = capture.read() if capture.isOpened() else (False, None)
        if read:
            return capture, image
        capture.release()
    return capture, None


def _open(cv2: Any, target: str | int) -> Any:
    """A `VideoCapture` of the target, opened or not."""
    limits: list[int] = []
    if _is_url(target):
        names = ("CAP_PROP_OPEN_TIMEOUT_MSEC", "CAP_PROP_READ_TIMEOUT_MSEC")
        limits = [value for name in names for value in (getattr(cv2, name), TIMEOUT_MS)]
    log = getattr(cv2.utils, "logging", cv2)  # in OpenCV 4 its functions are cv2's
    level = log.getLogLevel()
    log.setLogLevel(0)  # it prints lines about each backend that cannot open the target
    try:
        return cv2.VideoCapture(target, cv2.CAP_ANY, limits)
    finally:
        log.setLogLevel(level)


def _remedy(target: str | int) -> str:
    if isinstance(target, int):
        return f"is camera {target} connected, and free?"
    if _is_url(target):
        return "check address, password and network"
    return "is it a video, and complete?"
