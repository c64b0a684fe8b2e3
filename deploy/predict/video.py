"""Predict a video, a camera or a network stream, and write what is drawn as a video."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deploy.errors import UserError, warn
from deploy.files.atomic import sibling
from deploy.signals import Stopped
from deploy.stream.capture import SPARE, ask_rate, count_frames, import_opencv
from deploy.stream.sources import is_live
from deploy.tasks.task import Model
from deploy.verbosity import note

USUAL_FPS = 25.0
"""Of what is written of live sources, whose frames come when they come, and of files that do not tell their own."""
MOST_FPS = 1000.0
"""What is said to have more does not tell its own."""
PROGRESS_S = 2.0
CODEC = "mp4v"


class Finished(NamedTuple):
    """What was predicted."""

    frames: int
    dropped: int
    """Frames of a live source that came while others were predicted."""
    seconds: float


def predict_video(
    model: Model,
    target: str | int,
    path: Path,
    draw: Callable[[np.ndarray, Any], np.ndarray],
    most: int | None = None,
) -> Finished:
    """Predict every frame and write the drawn frames; Ctrl-C ends a live source, and the video is kept.

    The video of a file has its frames and its rate. Of a live source it lasts as long as the source did: a frame is
    shown until the next one came.

    Args:
        model: the model.
        target: path, URL or number of a camera.
        path: of the video, .mp4.
        draw: draws a frame and its result as uint8 H×W×3.
        most: frames to stop after.

    Raises:
        UserError: OpenCV is missing, the source cannot be opened, or the video cannot be written.
    """
    stopped: KeyboardInterrupt | None = None
    began, frames, dropped, told = time.monotonic(), 0, 0, time.monotonic()
    with _timed_writer(target, path) as write:
        stream = model.stream(target, draw=draw)
        try:
            for one in stream:
                assert one.picture is not None
                write(one.picture, one.seconds)
                frames, dropped = frames + 1, one.dropped
                if time.monotonic() - told > PROGRESS_S:
                    told = time.monotonic()
                    rate = frames / (told - began)
                    note(f"{one.where}: {rate:.1f} frames/s, {dropped} left out")
                if frames == most:
                    break
        except KeyboardInterrupt as error:
            if not frames:
                raise
            stopped = error
        finally:
            stream.close()
    if stopped is not None:
        print(f"stopped; {path} holds the {frames} frames until then", file=sys.stderr)
        if isinstance(stopped, Stopped) and stopped.number != signal.SIGINT:
            raise stopped
    return Finished(frames, dropped, time.monotonic() - began)


@contextmanager
def _timed_writer(target: str | int, path: Path) -> Iterator[Callable[[np.ndarray, float], None]]:
    """A function that appends a picture with its time stamp; the file appears when all is written."""
    if is_live(target):
        with _writer(path, USUAL_FPS) as write:
            yield _by_time(write, USUAL_FPS)
        return
    told = ask_rate(target)
    fps = told if 0 < told <= MOST_FPS else USUAL_FPS
    with _writer(path, fps) as write:
        yield lambda picture, _: write(picture)
    if fps != told:
        warn(f"{path}: has {fps:g} frames/s, as the source does not tell its own; it may be too fast or slow")


def _by_time(write: Callable[[np.ndarray], None], rate: float) -> Callable[[np.ndarray, float], None]:
    """A function that writes a picture at its time stamp: the one before is repeated until then.

    A picture whose place another one has taken is left out.
    """
    last: np.ndarray | None = None
    start, written = 0.0, 0

    def show(picture: np.ndarray, seconds: float) -> None:
        nonlocal last, start, written
        if last is None:
            last, start = picture, seconds
        position = round((seconds - start) * rate)
        for _ in range(written, position):
            write(last)
        if position >= written:
            write(picture)
        last, written = picture, max(written, position + 1)

    return show


@contextmanager
def _writer(path: Path, rate: float) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that appends a picture; the file appears when all is written."""
    cv2 = import_opencv()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(f"{sibling(path)}{path.suffix}")
    opened: list[Any] = []
    first, written, warned = (0, 0), 0, False

    def write(picture: np.ndarray) -> None:
        nonlocal first, written, warned
        height, width = (side - side % 2 for side in picture.shape[:2])  # codecs want even sides
        if not opened:
            first = width, height
            opened.append(
                cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*CODEC), rate, (width, height))
            )
            if not opened[0].isOpened():
                raise UserError(f"{path}: OpenCV cannot write it; is its folder writable?")
        frame = cv2.cvtColor(np.ascontiguousarray(picture[:height, :width]), cv2.COLOR_RGB2BGR)
        if (width, height) != first:  # as after a camera has come back; OpenCV would leave the frame out
            if not warned:
                warn(
                    f"{path}: frames were {first[0]}×{first[1]} pixels and are now {width}×{height}; they are resized"
                    " to the former"
                )
            warned = True
            frame = cv2.resize(frame, first, interpolation=cv2.INTER_AREA)
        opened[0].write(frame)
        written += 1

    try:
        yield write
        for one in opened:
            one.release()
        if opened:
            _check_written(path, temporary, written)
            os.replace(temporary, path)
    finally:
        for one in opened:
            one.release()
        temporary.unlink(missing_ok=True)


def _check_written(path: Path, temporary: Path, frames: int) -> None:
    """Refuse a video that is not all there: OpenCV's writer does not say that the disk is full."""
    found = count_frames(temporary)
    if found < max(1, frames - SPARE):
        raise UserError(
            f"{path}: only {found} of {frames} frames could be written; free some space on the disk and run again"
        )
