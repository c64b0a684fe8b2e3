"""The script that `benchmarks/raster.py` runs in a fresh process: one raster, and the bare engine on tiles of it.

It prints `Figures` as one line of JSON.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: imports start at the repository, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from time import perf_counter, process_time

import msgspec
import numpy as np

from deploy.errors import UserError, exit_with_one_line
from deploy.inference.preprocess import to_network
from deploy.latency.cold_process import peak_rss
from deploy.loading import load
from deploy.raster.geo import GeoSource
from deploy.raster.parts import open_parts
from deploy.raster.predict import Options, predict_raster
from deploy.tasks.segmentation.geotiff import write_labels
from deploy.tasks.segmentation.model import SegmentationModel


class Figures(msgspec.Struct, frozen=True):
    """Figures of one raster."""

    tiles: int
    run: int
    """Tiles that went through the engine."""
    predict_s: float
    """Seconds of reading, engine, blending and writing the parts to disk."""
    engine_s: float
    """Seconds of these spent in the engine."""
    predict_cpu_s: float
    """Processor time of all threads during `predict_s`."""
    write_s: float
    """Seconds of writing the GeoTIFF from the parts: compressed, with overviews, read back."""
    bare_s: float
    """The bare engine's seconds for as many tiles: the median of its batches, before and after."""
    bare_cpu_s: float
    """The same in processor time."""
    loaded_rss_bytes: int
    """Peak memory after loading, before the first tile."""
    peak_rss_bytes: int


def main() -> None:
    """Measure and print.

    The arguments of the process are: bundle, raster, output, batch, MB of memory, backend, threads (0: the backend's
    choice), and the seconds for which the bare engine is measured, before the raster and again after it.

    Raises:
        UserError: the bundle is not for segmentation.
    """
    bundle, raster, out, batch, memory, backend, threads, seconds = sys.argv[1:]
    model = load(bundle, backend, int(threads) or None)
    if not isinstance(model, SegmentationModel):
        raise UserError(f"{bundle}: is not for segmentation; give --bundle one that is")
    source, options = GeoSource(Path(raster)), Options(batch=int(batch), memory=int(memory))
    inputs = _inputs(model, source, options.batch)
    loaded = peak_rss()
    times = _bare(model, inputs, float(seconds))
    with open_parts(Path(out), {}, resume=False) as parts:
        cpu = process_time()
        summary = predict_raster(model, source, parts, options)
        cpu, start = process_time() - cpu, perf_counter()
        assert parts.labels is not None
        write_labels(Path(out), parts.labels, source, model.classes)
        written = perf_counter() - start
        parts.remove()
    peak = peak_rss()
    times += _bare(model, inputs, float(seconds))
    bare, bare_cpu = (float(one) for one in np.median(times, axis=0) / options.batch * summary.run)
    figures = Figures(
        tiles=summary.tiles,
        run=summary.run,
        predict_s=summary.seconds,
        engine_s=summary.engine_seconds,
        predict_cpu_s=cpu,
        write_s=written,
        bare_s=bare,
        bare_cpu_s=bare_cpu,
        loaded_rss_bytes=loaded,
        peak_rss_bytes=peak,
    )
    print(msgspec.json.encode(figures).decode())


def _inputs(model: SegmentationModel, source: GeoSource, batch: int) -> list[np.ndarray]:
    """A few batches of random tiles of the raster, so that no single batch decides the measurement."""
    height, width = model.input.height, model.input.width
    rng = np.random.default_rng(0)
    tiles = [
        source.read_window(
            int(rng.integers(source.height - height + 1)),
            int(rng.integers(source.width - width + 1)),
            height,
            width,
        )[0]
        for _ in range(4 * batch)
    ]
    return [to_network(np.stack(tiles[i : i + batch]), model.input) for i in range(0, len(tiles), batch)]


def _bare(model: SegmentationModel, inputs: list[np.ndarray], seconds: float) -> list[tuple[float, float]]:
    """Seconds of wall clock and of processor time of each run; the first run is not counted."""
    model.engine.run(inputs[0])
    times: list[tuple[float, float]] = []
    begin = perf_counter()
    while perf_counter() - begin < seconds:
        start, cpu = perf_counter(), process_time()
        model.engine.run(inputs[len(times) % len(inputs)])
        times.append((perf_counter() - start, process_time() - cpu))
    return times


if __name__ == "__main__":
    exit_with_one_line(main)
