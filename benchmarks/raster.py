"""Memory and throughput of `edgedistill predict-raster` on large rasters, against the bare engine on the same tiles.

    python benchmarks/raster.py --sizes 2048 8192 16384 --json raster.json
    python benchmarks/raster.py --bundle runs/quick/student.bundle

Measures each size in a fresh process, on a generated GeoTIFF (uint8 RGB or float32, as the bundle takes it). Without a
bundle it generates a network of five convolutions: 0.4 · 10⁹ multiply-accumulates for a tile of 512×512, half of
`edge-small`'s. "of bare" compares wall-clock times, "busy" is the share of the time that the engine runs; both get
worse when other programs use the cores. "CPU" does not: it is the processor time of the bare engine divided by that of
the whole process.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: imports start at the repository, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import subprocess
import tempfile
from collections.abc import Sequence

import msgspec
import numpy as np

from benchmarks.raster_network import make_bundle
from benchmarks.raster_process import Figures
from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError, exit_with_one_line
from deploy.files.atomic import write_json
from deploy.files.gdal import gdal
from deploy.measure import machine
from deploy.table import format_table


class Row(msgspec.Struct, frozen=True):
    """One size, as written to JSON."""

    size: int
    figures: Figures
    share: float
    """Throughput up to the last label on disk, as a share of the bare engine's."""
    busy: float
    """Share of the time up to the last label in which the engine ran."""
    cpu_share: float
    """Processor time of the bare engine, as a share of the whole process's up to the last label."""
    share_with_file: float
    """As `share`, but up to the finished GeoTIFF."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table, write JSON.

    Args:
        arguments: arguments of the command line; None for those of the process.

    Raises:
        UserError: an impossible option, or a size below one tile.
    """
    options = _parse(arguments)
    here = machine.describe()
    print(machine.summary(here), flush=True)
    with tempfile.TemporaryDirectory(prefix="raster-", dir=options.folder) as folder:
        bundle = options.bundle or make_bundle(Path(folder) / "bundle", options.tile, options.channels)
        rows = [_measure(bundle, size, Path(folder), options) for size in options.sizes]
    settings = {
        name: getattr(options, name)
        for name in ("channels", "batch", "memory", "backend", "threads", "compress")
    }
    print(", ".join(f"{name} {value}" for name, value in settings.items()), end="\n\n")
    print(_table(rows))
    write_json(
        options.json, {"machine": here, "bundle": str(options.bundle or "made up"), **settings, "rows": rows}
    )
    print(f"\nwritten to {options.json}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks/raster.py", description="Memory and throughput on large rasters."
    )
    add = parser.add_argument
    add("--bundle", type=Path, help="folder written by the export (default: a generated network)")
    add("--sizes", nargs="+", type=int, default=[2048, 8192, 16384], help="sides in pixels (2048 8192 16384)")
    add("--tile", type=int, default=512, help="side of the generated network's input (512)")
    add(
        "--channels",
        type=int,
        default=48,
        help="width of the generated network; its cost grows with the square (48)",
    )
    add("--batch", type=int, default=1, help="tiles in a batch (1)")
    add("--memory", type=int, default=128, help="MB for pixels and sums (128)")
    add("--backend", default="onnxruntime", help="default: onnxruntime")
    add("--threads", type=int, default=1, help="threads of the engine; 0: its own choice (1)")
    add("--seconds", type=float, default=4.0, help="seconds of the bare engine, before and after (4)")
    add("--compress", default="none", choices=("none", "deflate"), help="compression of the input (none)")
    add(
        "--folder",
        type=Path,
        help="folder for the rasters, 3 bytes a pixel or more (default: a temporary one)",
    )
    add("--json", type=Path, default=Path("runs/raster.json"), help="report (default: %(default)s)")
    options = parser.parse_args(arguments)
    if min(options.sizes) < 1 or options.tile < 32 or options.tile % 8 or options.channels < 2:
        raise UserError("--sizes must be positive, --tile a multiple of 8 from 32 on, --channels 2 or more")
    return options


def _measure(bundle: Path, size: int, folder: Path, options: argparse.Namespace) -> Row:
    """Measure one size in a fresh process.

    Raises:
        UserError: the raster is smaller than a tile, or the process failed.
    """
    spec, raster, out = read_manifest(bundle).input, folder / f"{size}.tif", folder / f"{size}-labels.tif"
    if size < max(spec.height, spec.width):
        raise UserError(
            f"--sizes {size}: is smaller than a tile, {spec.height}×{spec.width}; give a larger size"
        )
    make_raster(raster, size, spec, options.compress)
    script = Path(__file__).with_name("raster_process.py")
    values = (
        bundle,
        raster,
        out,
        options.batch,
        options.memory,
        options.backend,
        options.threads,
        options.seconds,
    )
    done = subprocess.run(
        [sys.executable, str(script), *map(str, values)], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise UserError(f"{size}×{size}: the measuring process failed, see its message above")
    raster.unlink()
    out.unlink()
    figures = msgspec.json.decode(done.stdout, type=Figures)
    return Row(
        size,
        figures,
        share=figures.bare_s / figures.predict_s,
        busy=figures.engine_s / figures.predict_s,
        cpu_share=figures.bare_cpu_s / figures.predict_cpu_s,
        share_with_file=figures.bare_s / (figures.predict_s + figures.write_s),
    )


def make_raster(path: Path, size: int, spec: InputSpec, compress: str) -> None:
    """Write a GeoTIFF of repeated tiles: soft shapes with noise, around the bundle's mean.

    Args:
        path: file to write.
        size: side in pixels.
        spec: channels, dtype, mean and deviation of the pixels.
        compress: "none" or a compression of GDAL.
    """
    rng, side, channels = np.random.default_rng(0), 512, len(spec.channels)
    soft = np.kron(rng.normal(size=(channels, 8, 8)), np.ones((1, 64, 64)))
    noisy = soft + rng.normal(0, 0.2, (channels, side, side))
    tile = noisy * np.array(spec.std)[:, None, None] + np.array(spec.mean)[:, None, None]
    tile = tile.clip(0, 255) if spec.dtype == "uint8" else tile
    profile = {"height": size, "width": size, "count": channels, "dtype": spec.dtype, "crs": "EPSG:32632"}
    layout = {"driver": "GTiff", "tiled": True, "blockxsize": side, "blockysize": side, "bigtiff": "if_safer"}
    with gdal() as rasterio:
        place = rasterio.Affine(10, 0, 500000, 0, -10, 5000000)
        squeeze = {} if compress == "none" else {"compress": compress}
        with rasterio.open(path, "w", transform=place, **profile, **layout, **squeeze) as file:
            for _, window in file.block_windows(1):
                file.write(tile[:, : window.height, : window.width].astype(spec.dtype), window=window)


def _table(rows: Sequence[Row]) -> str:
    head = (
        *("side", "tiles", "predict s", "engine s", "bare s", "of bare", "busy", "CPU"),
        *("file s", "of bare", "tiles/s", "RSS MB", "+MB"),
    )
    return format_table(head, [_cells(row) for row in rows])


def _cells(row: Row) -> tuple[str, ...]:
    figures = row.figures
    return (
        str(row.size),
        str(figures.run),
        f"{figures.predict_s:.2f}",
        f"{figures.engine_s:.2f}",
        f"{figures.bare_s:.2f}",
        f"{100 * row.share:.0f} %",
        f"{100 * row.busy:.0f} %",
        f"{100 * row.cpu_share:.0f} %",
        f"{figures.write_s:.2f}",
        f"{100 * row.share_with_file:.0f} %",
        f"{figures.run / figures.predict_s:.1f}",
        f"{figures.peak_rss_bytes / 1e6:.0f}",
        f"{(figures.peak_rss_bytes - figures.loaded_rss_bytes) / 1e6:.0f}",
    )


if __name__ == "__main__":
    exit_with_one_line(main)
