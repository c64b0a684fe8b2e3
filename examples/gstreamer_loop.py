"""Predict a video or the frames of a GStreamer pipeline, and write the drawn frames as a video.

    python examples/gstreamer_loop.py runs/first/student.bundle drive.mp4 drawn.mp4
    python examples/gstreamer_loop.py runs/first/student.bundle \
        "v4l2src ! videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1" drawn.mp4

On a Jetson a camera is `nvarguscamerasrc ! nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! …`. Pipelines need an
OpenCV with GStreamer, such as JetPack's or Debian's; that of PyPI reads files and cameras only.
"""

import sys
from collections.abc import Iterator

import cv2
import numpy as np

import edgedistill
from deploy.errors import UserError, exit_with_one_line


def frames(source: str) -> Iterator[np.ndarray]:
    """The frames of a file or, if it has elements with `!` between them, of a pipeline; RGB, uint8 H×W×3."""
    pipeline = "!" in source
    capture = cv2.VideoCapture(source, cv2.CAP_GSTREAMER if pipeline else cv2.CAP_ANY)
    if not capture.isOpened():
        has = "GStreamer:                   YES" in cv2.getBuildInformation()
        why = "" if has or not pipeline else "; this OpenCV has no GStreamer"
        raise UserError(f"{source}: cannot be opened{why}")
    try:
        while True:
            read, frame = capture.read()
            if not read:
                return
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()


def main(bundle: str, source: str, out: str, rate: float = 25.0) -> int:
    """Predict all frames while the next ones are decoded; returns their number."""
    model, writer, count = edgedistill.load(bundle), None, 0
    live = "!" in source
    for one in model.stream(frames(source), draw=True, when_full="drop" if live else "wait"):
        assert one.picture is not None
        height, width = one.picture.shape[:2]
        if writer is None:
            writer = cv2.VideoWriter(out, cv2.VideoWriter.fourcc(*"mp4v"), rate, (width, height))
            if not writer.isOpened():
                raise UserError(f"{out}: cannot be written")
        writer.write(cv2.cvtColor(one.picture, cv2.COLOR_RGB2BGR))
        count = one.index + 1
    if writer is not None:
        writer.release()
    print(f"{count} frames, {out}")
    return count


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: gstreamer_loop.py BUNDLE SOURCE OUT.mp4")
    exit_with_one_line(lambda: int(main(sys.argv[1], sys.argv[2], sys.argv[3]) == 0))
