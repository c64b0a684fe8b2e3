"""`edgedistill predict-raster`: predict a GeoTIFF of any size and write its labels as a GeoTIFF."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from deploy.bundle.bundle_files import read_manifest, require_unchanged
from deploy.bundle.manifest import Manifest
from deploy.command_parser import CommandParser
from deploy.engine_options import add_engine_options, engine_options
from deploy.errors import UserError
from deploy.files.decoding import check_order
from deploy.files.journal import Fingerprint
from deploy.files.json_output import add_json, print_result
from deploy.loading import load
from deploy.raster.geo import GeoRaster
from deploy.raster.opening import find_raster
from deploy.raster.parts import Parts, open_parts
from deploy.raster.predict import Options, check_fit, predict_raster
from deploy.raster.progress import Progress
from deploy.tasks.registry import require_classes
from deploy.tasks.segmentation.geotiff import probabilities_path, write_labels, write_probabilities
from deploy.tasks.segmentation.model import SegmentationModel


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Raises:
        UserError: an error that the user can fix.
    """
    arguments = _parser().parse_args(argv)
    manifest = read_manifest(arguments.bundle)
    require_classes(manifest, arguments.bundle, "use edgedistill predict, as predict-raster")
    options = raster_options(arguments)
    out, second = arguments.out, probabilities_path(arguments.out)
    if options.probabilities and second.exists() and not arguments.resume:
        raise UserError(f"{second}: exists; remove it or choose another name")
    with closing(find_raster(arguments.raster, arguments.bands).open()) as source:
        for line in check_raster(manifest, source):
            print(f"note: {line}", file=sys.stderr)
        model = load(
            arguments.bundle,
            threads=arguments.threads,
            fallback=arguments.fallback,
            **engine_options(arguments),
        )
        require_unchanged(arguments.bundle, manifest)
        assert isinstance(model, SegmentationModel)
        with open_parts(out, _fingerprint(manifest, source, model, options), arguments.resume) as parts:
            _run(model, source, parts, options, out, arguments.json)
    return 0


def _run(
    model: SegmentationModel, source: GeoRaster, parts: Parts, options: Options, out: Path, as_json: bool
) -> None:
    with closing(Progress()) as progress:
        summary = predict_raster(model, source, parts, options, progress)
    assert parts.labels is not None
    written = [out]
    if parts.probabilities is not None:
        write_probabilities(probabilities_path(out), parts.probabilities, source, model.classes)
        written.append(probabilities_path(out))
    write_labels(out, parts.labels, source, model.classes)
    parts.remove()
    rate = summary.run / summary.seconds if summary.seconds else 0
    files = " and probabilities in ".join(map(str, written))
    line = (
        f"{source.width}×{source.height} pixels predicted by {model.engine.name}: {summary.run} of {summary.tiles} "
        f"tiles run in {summary.seconds:.1f} s ({rate:.1f}/s); labels in {files}"
    )
    size = {"width": source.width, "height": source.height}
    tiles = {"tiles": summary.tiles, "run": summary.run, "seconds": summary.seconds}
    print_result(line, {"files": written, "engine": model.engine.name} | size | tiles, as_json)


def _fingerprint(
    manifest: Manifest, source: GeoRaster, model: SegmentationModel, options: Options
) -> Fingerprint:
    started = {"bundle": manifest.digest, "backend": model.engine.name}
    return {**started, **source.fingerprint(), **option_fingerprint(options)}


def option_fingerprint(options: Options) -> Fingerprint:
    """The options by the names that a user knows."""
    return {f"--{name}".replace("_", "-"): value for name, value in msgspec.to_builtins(options).items()}


def check_raster(manifest: Manifest, source: GeoRaster) -> list[str]:
    """Check that a bundle can read a raster.

    Returns:
        What the user should know before the two are used together.

    Raises:
        UserError: it cannot; or the bands have the names of its channels in another order.
    """
    check_fit(manifest.input, source)
    check_order(source.path, source.names, manifest.input.channels)
    lines = []
    if not (source.place.crs or source.place.points_crs):
        lines.append(f"{source.path}: has no CRS, so the output has none")
    if manifest.input.resize == "stretch":
        lines.append(
            "the bundle was trained on whole images resized to "
            f"{manifest.input.height}×{manifest.input.width}; here it sees tiles of that size without resizing"
        )
    return lines


RASTER_OPTIONS = ("overlap", "batch", "bands", "probabilities_dtype", "min_valid", "memory")
"""Names of the options of `add_raster_options`."""


def add_raster_options(parser: argparse._ActionsContainer) -> None:
    """Add the options that say how rasters are processed."""
    add = parser.add_argument
    add("--overlap", type=int, help="pixels that neighboring tiles share (default: a quarter of the tile)")
    add("--batch", type=int, default=1, help="tiles per call of the engine (default 1)")
    add("--bands", type=_bands, help="bands to read, numbered from 1, such as 1,2 (default: all but alpha)")
    add(
        "--probabilities-dtype", choices=("float32", "uint8"), default="float32", help="uint8: steps of 1/254"
    )
    add(
        "--min-valid",
        type=float,
        default=0.0,
        help="skip tiles with a smaller share of valid pixels, 0..1 (default 0)",
    )
    add("--memory", type=int, default=128, help="approximate MB for pixels and sums (default 128)")


def raster_options(arguments: argparse.Namespace) -> Options:
    """The options of a command that has those of `add_raster_options`, and `--probabilities`.

    Raises:
        UserError: an option is out of range.
    """
    return Options(
        arguments.overlap,
        arguments.batch,
        arguments.min_valid,
        arguments.probabilities_dtype if arguments.probabilities else None,
        arguments.memory,
    )


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="edgedistill predict-raster",
        description="Segment a georeferenced raster of any size, tile by tile, and blend the tiles where they overlap.",
    )
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE")
    add("raster", type=Path, metavar="INPUT", help="a GeoTIFF; or a folder of GeoTIFFs, or a VRT: one mosaic")
    add("out", type=Path, metavar="OUT.tif", help="labels, uint8; 255 is no data")
    add(
        "--probabilities",
        action="store_true",
        help="also write OUT_probabilities.tif, with a band for each class",
    )
    add("--resume", action="store_true", help="continue an interrupted run")
    add_raster_options(parser)
    add("--threads", type=int, help="CPU threads of the engine (default: its own choice)")
    add_engine_options(parser)
    add("--fallback", action="store_true", help="use the CPU if the TensorRT backend cannot run")
    add_json(parser)
    return parser


def _bands(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise UserError(f"--bands {text}: give numbers from 1, such as 1,2")
    return [int(part) for part in parts]
