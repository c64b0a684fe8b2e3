"""What a training image costs before the network sees it, in milliseconds on one thread.

    python benchmarks/loading.py camvid-cpu --data.root data/camvid --json loading.json

Measures each available decoder and the project's own reader, then each step from the reader to a batch, and whole
batches: cold (read, resize, augment, collate) and from the cache of decoded images. Takes any preset and its fields.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: imports start at the repository, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import cv2
import msgspec
import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_image

from deploy.errors import UserError, exit_with_one_line
from deploy.files.atomic import write_json
from deploy.measure.machine import describe, summary
from deploy.table import format_table
from distill.config import RunConfig
from distill.data.datasets.pairs import PairReader
from distill.data.sample import stack
from distill.data.splits import Splits
from distill.data.train_view import TrainView
from distill.run import parse
from distill.tasks.registry import open_splits

Times = tuple[float, float]
"""Seconds of wall clock and of processor time."""

READ_BY_ALL = (".png", ".jpg", ".jpeg")
"""Formats that all decoders read."""


class Row(msgspec.Struct, frozen=True):
    """One step, in milliseconds an image."""

    step: str
    median: float
    p90: float
    cpu: float
    """Median of the processor time: what the step takes from training, independent of other load on the machine."""
    equals_pillow: bool | None = None
    """For a decoder: whether every pixel of every measured image equals Pillow's."""


def main(argv: Sequence[str]) -> None:
    """Measure the training split of a preset, print a table and write it as JSON.

    Args:
        argv: arguments of the command line.

    Raises:
        UserError: a count below 1, or a training split without images.
    """
    parser = argparse.ArgumentParser(
        prog="benchmarks/loading.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("preset")
    parser.add_argument(
        "--images", type=int, default=32, help="images from the start of the split (default 32)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each step (default 5)")
    parser.add_argument("--json", type=Path, default=Path("runs/loading.json"), help="default: %(default)s")
    options, fields = parser.parse_known_args(argv)
    if options.images < 1 or options.rounds < 1:
        raise UserError(f"--images {options.images} --rounds {options.rounds}: give at least 1 of each")
    config = parse([options.preset, *fields])
    splits = open_splits(config.data, config.seed)
    images = range(min(options.images, len(splits.train)))
    if not images:
        raise UserError("the training split has no images")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the other cores are the network's
    try:
        rows = [*_decoders(splits, images, options.rounds), *_steps(config, splits, images, options.rounds)]
    finally:
        torch.set_num_threads(threads)
    machine = describe()
    print(
        f"{splits.name}: {len(images)} images × {options.rounds} rounds; ms an image", table(rows), sep="\n\n"
    )
    print(summary(machine))
    report = {"machine": machine, "preset": options.preset, "images": len(images), "rounds": options.rounds}
    write_json(options.json, report | {"rows": rows})
    print(f"written to {options.json}")


def table(rows: Sequence[Row]) -> str:
    """A line for each step."""
    same = {None: "", True: "yes", False: "no"}
    lines = [
        (row.step, *(f"{ms:.3f}" for ms in (row.median, row.p90, row.cpu)), same[row.equals_pillow])
        for row in rows
    ]
    return format_table(("step", "median", "p90", "CPU", "Pillow's pixels"), lines)


def _decoders(splits: Splits, images: range, rounds: int) -> list[Row]:
    """Rows of all decoders; empty if the samples do not come from files that all of them read."""
    reader = splits.train
    if not isinstance(reader, PairReader):
        return []
    pairs = [reader.pairs[index] for index in images]
    rows = []
    for kind, files in (("image", [p.image for p in pairs]), ("label", [p.mask for p in pairs])):
        if all(path.suffix.lower() in READ_BY_ALL for path in files):
            rows += _compare(kind, files, rounds)
    return rows


def _compare(kind: str, files: Sequence[Path], rounds: int) -> list[Row]:
    color = kind == "image"
    decoders: dict[str, Callable[[Path], np.ndarray]] = {
        "Pillow": lambda path: _pillow(path, color),
        "OpenCV": lambda path: _opencv(path, color),
        "torchvision": lambda path: _torchvision(path, color),
    }
    expected = [_pillow(path, color) for path in files]
    calls = {name: [_bind(decode, path) for path in files] for name, decode in decoders.items()}
    with warnings.catch_warnings():
        # torchvision deprecates its decoders in favor of torchcodec; they are compared until it removes them
        warnings.filterwarnings("ignore", "The image decoding and encoding", DeprecationWarning)
        same = {
            name: all(np.array_equal(call(), pixels) for call, pixels in zip(group, expected, strict=True))
            for name, group in calls.items()
        }
        times = _interleaved(calls, rounds)
    return [_row(f"decode {kind}, {name}", each, equals_pillow=same[name]) for name, each in times.items()]


def _pillow(path: Path, color: bool) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image.convert("RGB") if color else image)


def _opencv(path: Path, color: bool) -> np.ndarray:
    flags = cv2.IMREAD_COLOR if color else cv2.IMREAD_UNCHANGED
    pixels: Any = cv2.imread(str(path), flags | cv2.IMREAD_IGNORE_ORIENTATION if color else flags)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if color else pixels


def _torchvision(path: Path, color: bool) -> np.ndarray:
    planes = decode_image(str(path), ImageReadMode.RGB if color else ImageReadMode.UNCHANGED).numpy()
    return planes.transpose(1, 2, 0) if color else planes.squeeze(0)


def _steps(config: RunConfig, splits: Splits, images: range, rounds: int) -> list[Row]:
    view, cold = (_view(config, splits, cache) for cache in (True, False))
    samples = [splits.train[index] for index in images]
    ready = [view[0, index] for index in images]  # this also fills the cache
    batch = min(config.student_train.batch_size, len(images))
    starts = range(0, len(images) - batch + 1, batch)
    single = {
        "read": [_bind(splits.train.__getitem__, index) for index in images],
        "to network scale": [_bind(view.to_network_scale, sample) for sample in samples],
        "augment": [_bind(view.__getitem__, (1, index)) for index in images],
    }
    joined = {
        "collate": [_bind(stack, ready[start : start + batch]) for start in starts],
        "batch, cold": [_bind(_load, cold, range(start, start + batch)) for start in starts],
        "batch, from the cache": [_bind(_load, view, range(start, start + batch)) for start in starts],
    }
    rows = [_row(step, times) for step, times in _interleaved(single, rounds).items()]
    return rows + [
        _row(f"{step} (of {batch})", times, images=batch)
        for step, times in _interleaved(joined, rounds).items()
    ]


def _view(config: RunConfig, splits: Splits, cache: bool) -> TrainView:
    return TrainView(
        splits.train,
        size=config.data.size,
        resize=config.data.resize,
        augment=replace(config.augment, balance=0.0),
        mean=(0.0,) * len(splits.channels),
        optical=splits.optical,
        seed=config.seed,
        cache=cache,
    )


def _load(view: TrainView, indices: range) -> None:
    stack([view[1, index] for index in indices])


def _bind(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    return lambda: function(*arguments)


def _interleaved(calls: dict[str, list[Callable[[], Any]]], rounds: int) -> dict[str, list[Times]]:
    """Time the calls in turns, so that other load on the machine affects all steps alike.

    Args:
        calls: one call per image or batch, by step.
        rounds: how often all calls are made.

    Returns:
        The times of all calls, by step.
    """
    times: dict[str, list[Times]] = {name: [] for name in calls}
    for _ in range(rounds):
        for group in zip(*calls.values(), strict=True):
            for name, call in zip(calls, group, strict=True):
                wall, cpu = time.perf_counter(), time.process_time()
                call()
                times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return times


def _row(step: str, times: Sequence[Times], images: int = 1, **options: bool) -> Row:
    wall, cpu = (1e3 / images * np.array(column) for column in zip(*times, strict=True))
    median, p90 = np.percentile(wall, (50, 90))
    return Row(step, float(median), float(p90), float(np.median(cpu)), **options)


if __name__ == "__main__":
    exit_with_one_line(lambda: main(sys.argv[1:]))
