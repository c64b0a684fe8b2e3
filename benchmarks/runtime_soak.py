"""`model.stream` from a video file for minutes: memory, order of the frames, and how evenly results come."""

from dataclasses import dataclass
from pathlib import Path
from time import monotonic, perf_counter

import cv2
import numpy as np

from deploy.errors import UserError
from deploy.host import read_text
from deploy.table import format_table
from deploy.tasks.task import Model

SECONDS, FPS = 20, 30
"""Length and rate of the generated video."""
SETTLED = 0.1
"""Share of the time after which memory counts: libraries fill their caches before."""
PAGE = 4096


@dataclass(frozen=True)
class Soak:
    """Figures of one run."""

    minutes: float
    frames: int
    passes: int
    """How often the video was streamed from its beginning."""
    out_of_order: int
    dropped: int
    wrong_labels: int
    """Frames whose labels differ from those of the first pass."""
    per_second: float
    interval_ms: tuple[float, float, float]
    """Time between two results: p50, p90, p99."""
    call_ms: tuple[float, float, float]
    """Resizing, engine and postprocessing of a frame: p50, p90, p99."""
    rss_mb: tuple[float, float, float]
    """Memory of the process once settled, at the end, and at most between."""
    growth_mb_per_minute: float
    """Slope of a line through the memory, once settled."""
    rss_mb_by_minute: tuple[float, ...]
    """Median of each minute: a single value depends on how many frames are just in memory."""


def write_video(path: Path, size: tuple[int, int]) -> None:
    """Write disks that move over a gradient: `SECONDS` at `FPS`, of (height, width) pixels.

    Raises:
        UserError: OpenCV cannot write videos here.
    """
    height, width = size
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (width, height))
    if not writer.isOpened():
        raise UserError(f"{path}: OpenCV cannot write it; give a video with --video")
    ramp = np.linspace(0, 255, width).astype(np.uint8)
    ground = np.stack(
        [np.broadcast_to(ramp, (height, width)), np.full((height, width), 90, np.uint8)], axis=2
    )
    ground = np.concatenate([ground, ground[:, ::-1, :1]], axis=2)
    for number in range(SECONDS * FPS):
        image, angle = ground.copy(), 2 * np.pi * number / (SECONDS * FPS)
        for disk in range(5):
            turn = angle * (disk + 1)
            x, y = width * (0.5 + 0.4 * np.cos(turn)), height * (0.5 + 0.4 * np.sin(turn))
            cv2.circle(image, (int(x), int(y)), height // 8, (50 * disk, 255 - 50 * disk, 128), -1)
        writer.write(image)
    writer.release()


def soak(model: Model, video: Path, minutes: float) -> Soak:
    """Stream a video again and again for some minutes, and compare every pass with the first."""
    begin, end = monotonic(), monotonic() + 60 * minutes
    intervals: list[float] = []
    calls: list[float] = []
    memory: list[tuple[float, float]] = []
    first_pass: list[int] = []
    passes = out_of_order = dropped = wrong = 0
    while monotonic() < end:
        stream, expected, last = model.stream(video), 0, perf_counter()
        for one in stream:
            now = perf_counter()
            if one.index:  # the first one of a pass includes the opening of the file
                intervals.append(1000 * (now - last))
            last = now
            calls.append(one.result.timings.total_ms)
            out_of_order += one.index != expected
            dropped, expected = dropped + one.dropped, expected + 1
            digest = hash(one.result.labels.tobytes())
            if passes == 0:
                first_pass.append(digest)
            wrong += digest != first_pass[one.index]
            if one.index % FPS == 0:
                memory.append((monotonic() - begin, resident_mb()))
            if monotonic() > end and passes:
                break
        stream.close()
        passes += 1
    took = monotonic() - begin
    minutes_of = np.array([seconds // 60 for seconds, _ in memory])
    sizes = np.array([size for _, size in memory])
    by_minute = tuple(float(np.median(sizes[minutes_of == minute])) for minute in np.unique(minutes_of))
    settled = np.array([entry for entry in memory if entry[0] >= SETTLED * took])
    slope = 60 * float(np.polyfit(settled[:, 0], settled[:, 1], 1)[0]) if len(settled) > 1 else 0.0
    rss = (float(settled[0, 1]), float(settled[-1, 1]), float(settled[:, 1].max()))
    counts = (len(calls), passes, out_of_order, dropped, wrong)
    return Soak(
        took / 60,
        *counts,
        len(calls) / took,
        percentiles(intervals),
        percentiles(calls),
        rss,
        slope,
        by_minute,
    )


def percentiles(values: list[float]) -> tuple[float, float, float]:
    """p50, p90, p99."""
    p50, p90, p99 = np.percentile(values, [50, 90, 99]).tolist()
    return p50, p90, p99


def resident_mb() -> float:
    """Memory of this process in MB; 0 where the system does not report it."""
    fields = read_text("/proc/self/statm").split()
    return int(fields[1]) * PAGE / 1e6 if fields else 0.0


def soak_table(one: Soak) -> str:
    """The figures, one a line."""
    lines = [
        ("minutes, passes, frames", f"{one.minutes:.1f}, {one.passes}, {one.frames}"),
        ("frames per second", f"{one.per_second:.1f}"),
        (
            "out of order, dropped, labels unlike the first pass",
            f"{one.out_of_order}, {one.dropped}, {one.wrong_labels}",
        ),
        ("interval ms: p50, p90, p99", _listed(one.interval_ms)),
        ("p99 / p50", f"{one.interval_ms[2] / one.interval_ms[0]:.2f}"),
        ("resize + engine + labels ms: p50, p90, p99", _listed(one.call_ms)),
        ("p99 / p50", f"{one.call_ms[2] / one.call_ms[0]:.2f}"),
        ("memory MB: settled, end, most", _listed(one.rss_mb)),
        ("memory MB, median of each minute", " ".join(f"{size:.0f}" for size in one.rss_mb_by_minute)),
        ("growth MB per minute", f"{one.growth_mb_per_minute:+.2f}"),
    ]
    return format_table(("stream", ""), lines)


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)
