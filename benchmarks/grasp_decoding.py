"""Grasp decoding against scikit-image, both on one thread: `python benchmarks/grasp_decoding.py`.

The scikit-image version smooths all four maps with a Gaussian and takes `peak_local_max` of the quality, as GG-CNN's
code does. Both decode the same maps, in turns: those of a random tabletop scene with added noise.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository root, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np

from deploy.errors import UserError, exit_with_one_line
from deploy.files.atomic import write_json
from deploy.measure.machine import describe, summary
from deploy.table import format_table
from deploy.tasks.grasp.decode import MIN_DISTANCE, MIN_QUALITY, decode

Decoder = Callable[[np.ndarray], object]
NOISE = 0.03
"""Standard deviation of the noise added to the maps."""
WARM = 10
"""Runs before the measured ones."""


def main(argv: Sequence[str]) -> int:
    """Measure, print the table and write it as JSON."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/grasp_decoding.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--size", type=int, default=300, help="side of the maps (default 300)")
    parser.add_argument("--count", type=int, default=5, help="largest number of grasps (default 5)")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument(
        "--json", type=Path, default=Path("runs/grasp-decoding.json"), help="default: %(default)s"
    )
    options = parser.parse_args(argv)
    if min(options.size - 31, options.count, options.runs) < 1:
        raise UserError("give --size of 32 or more, --count and --runs of 1 or more")
    maps = example(options.size)
    ways = {
        "this project": lambda m: decode(m, count=options.count),
        "scikit-image": scikit_image(options.count),
    }
    times = in_turns(ways, maps, options.runs)
    first = np.median(times["this project"])
    header = ("way", "median ms", "p90", "p99", "std", "times ours")
    rows = [
        (
            name,
            *(f"{1e3 * np.percentile(values, q):.2f}" for q in (50, 90, 99)),
            f"{1e3 * values.std():.2f}",
            f"{np.median(values) / first:.1f}",
        )
        for name, values in times.items()
    ]
    machine = describe()
    print(
        f"maps of {options.size}×{options.size}, up to {options.count} grasps, {options.runs} runs in turns"
    )
    print(format_table(header, rows), summary(machine), sep="\n")
    seconds = {name: values.tolist() for name, values in times.items()}
    write_json(
        options.json, {"machine": machine, "size": options.size, "count": options.count, "seconds": seconds}
    )
    return 0


def example(side: int) -> np.ndarray:
    """Maps float32 4×side×side of a scene, blurred and noisy like a network's."""
    # start-up time: not needed for --help
    from deploy.tasks.grasp.decode import smoothed
    from distill.data.grasp.objects import object_split
    from distill.data.grasp.tabletop import tabletop_scene
    from distill.data.grasp.targets import encode

    rng = np.random.default_rng(0)
    scene = tabletop_scene(rng, side, side, object_split(0)["test"], 0)
    maps = encode(scene.grasps, side, side) + NOISE * rng.standard_normal((4, side, side), dtype=np.float32)
    return np.stack([smoothed(plane, 1.0) for plane in maps])


def scikit_image(count: int) -> Decoder:
    """A decoder as in GG-CNN's code.

    Args:
        count: largest number of grasps that it returns.

    Raises:
        UserError: scikit-image is not installed.
    """
    try:  # optional dependency
        from skimage.feature import peak_local_max
        from skimage.filters import gaussian
    except ImportError as error:
        raise UserError("the comparison needs scikit-image: pip install scikit-image") from error

    def run(maps: np.ndarray) -> list[tuple[object, ...]]:
        quality, cos, sin, width = (
            gaussian(plane, sigma, preserve_range=True)
            for plane, sigma in zip(maps, (2, 2, 2, 1), strict=True)
        )
        angle = np.arctan2(sin, cos) / 2
        peaks = peak_local_max(
            quality,
            min_distance=MIN_DISTANCE,
            threshold_abs=MIN_QUALITY,
            num_peaks=count,
            exclude_border=False,
        )
        return [(column, row, angle[row, column], width[row, column]) for row, column in peaks]

    return run


def in_turns(ways: dict[str, Decoder], maps: np.ndarray, runs: int) -> dict[str, np.ndarray]:
    """Seconds of each run of each decoder. They take turns, so that other load on the machine affects all alike.

    Args:
        ways: decoders by name.
        maps: grasp maps, float32 4×H×W.
        runs: measured runs of each decoder, after `WARM` that are not counted.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(WARM + runs):
        for name, decoder in ways.items():
            began = time.perf_counter()
            decoder(maps)
            if turn >= WARM:
                times[name].append(time.perf_counter() - began)
    return {name: np.array(values) for name, values in times.items()}


if __name__ == "__main__":
    exit_with_one_line(lambda: main(sys.argv[1:]))
