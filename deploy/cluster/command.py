"""`edgedistill predict-many`: predict many images, rasters or a mosaic by several processes or machines."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from deploy.bundle.bundle_files import read_manifest
from deploy.cluster.connect import SECONDS, connected, import_distributed
from deploy.cluster.fitness import Job, check_workers
from deploy.cluster.inputs import Inputs, find_images, find_mosaic, find_rasters
from deploy.cluster.predict import check_outputs, predict_images, predict_scenes
from deploy.cluster.report import Report
from deploy.cluster.work import Work, claimed
from deploy.engine_options import add_engine_options
from deploy.errors import UserError
from deploy.files.journal import Fingerprint
from deploy.pinned import Pin, pin
from deploy.raster.command import RASTER_OPTIONS, add_raster_options, option_fingerprint, raster_options
from deploy.raster.predict import Options
from deploy.tasks.registry import require_classes


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code: 1 if some inputs could not be predicted.

    Raises:
        UserError: an error that the user can fix.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    _check(parser, arguments)
    import_distributed()
    options = raster_options(arguments)
    inputs = _find(arguments, options)
    pinned = pin(arguments.bundle, arguments.backend, arguments.precision, arguments.threads)
    fingerprint = _fingerprint(pinned, inputs.kind, arguments, options)
    with claimed(inputs.work, inputs.out, fingerprint, arguments.resume) as work:
        report = _predict(inputs, work, pinned, arguments)
        if not report.failures:
            work.remove()
    print(report.line(inputs.kind, pinned.engine, arguments.out))
    report.print_failures(inputs.kind)
    return 1 if report.failures else 0


def _find(arguments: argparse.Namespace, options: Options) -> Inputs:
    path, out, manifest = arguments.input, arguments.out, read_manifest(arguments.bundle)
    if not (arguments.rasters or arguments.mosaic):
        return find_images(path, out)
    require_classes(manifest, arguments.bundle, "predict-many of rasters")
    find = find_mosaic if arguments.mosaic else find_rasters
    return find(path, out, arguments.bands, options, manifest)


def _predict(inputs: Inputs, work: Work, pinned: Pin, arguments: argparse.Namespace) -> Report:
    """Predict what an earlier run has not done."""
    images = [one for one in inputs.images if not work.is_done(one)]
    scenes = [one for one in inputs.scenes if not work.is_done(one)]
    before = inputs.total - len(inputs.failures) - len(images) - len(scenes)
    report = Report(inputs.total, before, failures=inputs.failures)
    check_outputs(work, scenes)
    if not (images or scenes):
        return report
    sample, run, out = (str(path.absolute()) for path in (inputs.sample, work.run, inputs.out))
    job = Job(pinned, sample, run, out, arguments.probabilities)
    with connected(arguments.scheduler, arguments.workers, arguments.timeout) as client:
        check_workers(client, job)
        if images:
            predict_images(client, job, work, images, report)
        else:
            predict_scenes(client, job, work, scenes, report)
    return report


def _fingerprint(pinned: Pin, what: str, arguments: argparse.Namespace, options: Options) -> Fingerprint:
    return {
        "bundle": pinned.digest,
        "backend": pinned.engine,
        "INPUT": str(arguments.input.absolute()),
        "kind of inputs": what,
        "--probabilities": arguments.probabilities,
        "--bands": arguments.bands,
        **option_fingerprint(options),
    }


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse options that would be ignored.

    Raises:
        UserError: there is one.
    """
    if not (arguments.rasters or arguments.mosaic):
        for name in RASTER_OPTIONS:
            if getattr(arguments, name) != parser.get_default(name):
                raise UserError(f"--{name.replace('_', '-')} is for --rasters and --mosaic")
    if arguments.scheduler is not None and arguments.workers is not None:
        raise UserError(
            "--workers is for processes of this machine; a cluster with a --scheduler has its own"
        )
    if arguments.workers is not None and arguments.workers < 1:
        raise UserError(f"--workers {arguments.workers}: give at least 1")
    if not arguments.timeout > 0:
        raise UserError(f"--timeout {arguments.timeout:g}: give seconds above 0")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edgedistill predict-many",
        description="Predict many inputs by several processes or machines, with the results of one.",
    )
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE")
    add("input", type=Path, metavar="INPUT", help="folder of images or, with an option below, of GeoTIFFs")
    add("out", type=Path, metavar="OUT", help="folder of the results; with --mosaic the GeoTIFF")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument(
        "--rasters", action="store_true", help="segment each GeoTIFF of the folder as predict-raster does"
    )
    kinds.add_argument(
        "--mosaic",
        action="store_true",
        help="segment a large GeoTIFF, or a folder of GeoTIFFs or a VRT as one raster",
    )
    add(
        "--scheduler",
        metavar="ADDRESS|FILE",
        help="of a running Dask cluster (default: processes of this machine)",
    )
    add("--workers", type=int, help="number of these processes (default: one for each core)")
    add(
        "--timeout",
        type=float,
        default=SECONDS,
        help="seconds to wait for the cluster (default: %(default)g)",
    )
    add("--resume", action="store_true", help="continue an interrupted run, or one after inputs were mended")
    add(
        "--probabilities",
        action="store_true",
        help="also write the probabilities: of images as .npy, of rasters as GeoTIFF",
    )
    add(
        "--threads",
        type=int,
        default=1,
        help="CPU threads of the engine for each task (default: %(default)s)",
    )
    add_engine_options(parser)
    add_raster_options(parser)
    return parser
