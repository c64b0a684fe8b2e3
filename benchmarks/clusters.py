"""Throughput of `edgedistill predict-many` by one and by two workers, and of one process, in turns.

    python benchmarks/clusters.py --json clusters.json
    python benchmarks/clusters.py --workers 1 2 4 8 --images 400 --side 8192

All run the same images and the same raster with one thread each, on a generated network of five convolutions. The
clusters stay up; a turn is the whole command, from reading the bundle to the last file. "× one worker" is the median
over turns of the ratio within a turn. "CPU" compares processor time for the same work, so other programs hardly disturb
it: 1.00 means that a worker among several has no more to do than one alone, and that idle cores give the full factor.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: imports start at the repository, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import contextlib
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from time import perf_counter, process_time
from typing import NamedTuple

import msgspec
import numpy as np

from benchmarks.raster import make_raster
from benchmarks.raster_network import make_bundle
from deploy import cli
from deploy.bundle.bundle_files import read_manifest
from deploy.cluster.connect import LOCAL, import_distributed
from deploy.errors import UserError, exit_with_one_line
from deploy.files.atomic import write_json
from deploy.files.images import write_png
from deploy.measure import machine
from deploy.table import format_table

ONE_PROCESS = "one process"
ENGINE = ("--backend", "onnxruntime", "--threads", "1")


class Turn(NamedTuple):
    """What a turn took."""

    seconds: float
    cpu_seconds: float
    """Of the processes that predict; 0 where the system does not tell."""


class Row(msgspec.Struct, frozen=True):
    """One way to predict one kind of input."""

    inputs: str
    way: str
    seconds: float
    """Median over turns."""
    speedup: float
    """Over one worker: median of the ratios within turns."""
    cpu: float
    """Processor time of one worker divided by this one's: median of the ratios within turns."""
    turns: list[Turn]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table, write JSON.

    Args:
        arguments: arguments of the command line; None for those of the process.

    Raises:
        UserError: an impossible option, or Dask is missing.
    """
    options = _parse(arguments)
    here = machine.describe()
    print(machine.summary(here), flush=True)
    with tempfile.TemporaryDirectory(prefix="clusters-", dir=options.folder) as name:
        folder = Path(name)
        bundle = make_bundle(folder / "bundle", options.tile, options.channels)
        inputs = _make_inputs(folder, bundle, options)
        with contextlib.ExitStack() as stack:
            clusters = {count: stack.enter_context(_cluster(count)) for count in options.workers}
            rows = [
                row
                for kind, given in inputs.items()
                for row in _measure(kind, given, bundle, clusters, options)
            ]
    print(_table(rows))
    settings = {one: getattr(options, one) for one in ("images", "size", "side", "tile", "channels", "turns")}
    write_json(options.json, {"machine": here, **settings, "rows": rows})
    print(f"\nwritten to {options.json}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/clusters.py", description="Throughput of predict-many.")
    add = parser.add_argument
    add("--workers", nargs="+", type=int, default=[1, 2], help="numbers of workers, one of them 1 (1 2)")
    add("--images", type=int, default=60, help="number of images (60)")
    add("--size", type=int, default=512, help="their side in pixels (512)")
    add("--side", type=int, default=6144, help="side of the raster in pixels (6144)")
    add("--tile", type=int, default=512, help="side of the network's input (512)")
    add(
        "--channels", type=int, default=128, help="width of the network; its cost grows with the square (128)"
    )
    add("--turns", type=int, default=3, help="turns of each (3)")
    add("--folder", type=Path, help="folder for all files (default: a temporary one)")
    add("--json", type=Path, default=Path("runs/clusters.json"), help="report (default: %(default)s)")
    options = parser.parse_args(arguments)
    if 1 not in options.workers or min(options.workers) < 1:
        raise UserError(
            "--workers: give numbers from 1 on, and 1 among them, which the others are compared with"
        )
    if min(options.images, options.size, options.turns) < 1 or options.side < options.tile:
        raise UserError("--images, --size and --turns must be positive, --side at least --tile")
    return options


def _make_inputs(folder: Path, bundle: Path, options: argparse.Namespace) -> dict[str, Path]:
    images, rng = folder / "images", np.random.default_rng(0)
    images.mkdir()
    for index in range(options.images):
        soft = rng.integers(0, 256, (-(-options.size // 8), -(-options.size // 8), 3), np.uint8)
        write_png(
            images / f"{index:05d}.png",
            np.kron(soft, np.ones((8, 8, 1), np.uint8))[: options.size, : options.size],
        )
    make_raster(folder / "raster.tif", options.side, read_manifest(bundle).input, "none")
    return {"images": images, "raster": folder / "raster.tif"}


class Cluster(NamedTuple):
    """Workers of one thread each, with the settings that `predict-many --workers` gives them."""

    address: str
    cpu_seconds: Callable[[], float]
    """Processor time of all workers so far."""


@contextlib.contextmanager
def _cluster(workers: int) -> Iterator[Cluster]:
    from dask import config  # optional dependency, as distributed is

    distributed = import_distributed()
    with (
        config.set(LOCAL),
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield Cluster(cluster.scheduler_address, lambda: sum(client.run(process_time).values()))


def _measure(
    kind: str, given: Path, bundle: Path, clusters: Mapping[int, Cluster], options: argparse.Namespace
) -> Iterator[Row]:
    """Measure one kind of input, all ways in turns."""
    ways: dict[str, Callable[[Path], Turn]] = {ONE_PROCESS: lambda out: _alone(kind, bundle, given, out)}
    for count, cluster in clusters.items():
        ways[_name(count)] = lambda out, cluster=cluster: _many(kind, bundle, given, out, cluster)
    turns: dict[str, list[Turn]] = {name: [] for name in ways}
    for turn in range(options.turns + 1):
        for name, run in ways.items():
            out = given.parent / "out"
            found = run(out / "result.tif" if kind == "raster" else out)
            shutil.rmtree(out)
            if turn > 0:  # in the first one, workers load the bundle
                turns[name].append(found)
    one = turns[_name(1)]
    for name, found in turns.items():
        pairs = list(zip(one, found, strict=True))
        yield Row(
            kind,
            name,
            median(one.seconds for one in found),
            median(first.seconds / other.seconds for first, other in pairs),
            median(first.cpu_seconds / max(other.cpu_seconds, 1e-9) for first, other in pairs),
            found,
        )


def _name(workers: int) -> str:
    return f"{workers} worker{'s' if workers > 1 else ''}"


def _alone(kind: str, bundle: Path, given: Path, out: Path) -> Turn:
    """`predict` or `predict-raster` in this process."""
    if kind == "raster":
        return _run(("predict-raster", str(bundle), str(given), str(out)), process_time)
    return _run(("predict", str(bundle), str(given), "--out", str(out)), process_time)


def _many(kind: str, bundle: Path, given: Path, out: Path, cluster: Cluster) -> Turn:
    command = ("predict-many", str(bundle), str(given), str(out), "--scheduler", cluster.address)
    return _run((*command, *(("--mosaic",) if kind == "raster" else ())), cluster.cpu_seconds)


def _run(command: Sequence[str], cpu_seconds: Callable[[], float]) -> Turn:
    """Run a command without its output."""
    nowhere, cpu, begin = io.StringIO(), cpu_seconds(), perf_counter()
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        code = cli.main([*command, *ENGINE])
    seconds = perf_counter() - begin
    if code:
        raise UserError(f"{command[0]} failed: {nowhere.getvalue().splitlines()[-1]}")
    return Turn(seconds, cpu_seconds() - cpu)


def _table(rows: Sequence[Row]) -> str:
    head = ("inputs", "by", "seconds", "× one worker", "CPU")
    cells = [
        (one.inputs, one.way, f"{one.seconds:.2f}", f"{one.speedup:.2f}", f"{one.cpu:.2f}") for one in rows
    ]
    return format_table(head, cells)


if __name__ == "__main__":
    exit_with_one_line(main)
