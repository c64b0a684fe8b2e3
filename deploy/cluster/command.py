"""`edgedistill predict-many`: predict many images, rasters or a mosaic by several processes or machines."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import msgspec

from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.find import find_bundle
from deploy.bundle.manifest import Manifest
from deploy.cluster.connect import SECONDS, connected, import_distributed
from deploy.cluster.fitness import Job, check_workers
from deploy.cluster.inputs import Inputs, find_images, find_mosaic, find_rasters
from deploy.cluster.predict import check_outputs, predict_images, predict_scenes
from deploy.cluster.report import Report
from deploy.cluster.work import Work, claimed
from deploy.command_parser import CommandParser
from deploy.engine_options import add_engine_options, engine_options
from deploy.errors import UserError
from deploy.files.journal import Fingerprint
from deploy.files.json_output import add_json, print_result
from deploy.pinned import pin
from deploy.predict.command import (
    RESULT_OPTIONS,
    add_result_options,
    drawing_words,
    formats_of,
    look_of,
)
from deploy.raster.command import RASTER_OPTIONS, add_raster_options, option_fingerprint, raster_options
from deploy.raster.predict import Options
from deploy.tasks.registry import require_classes, task_of


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code: 1 if some inputs could not be predicted.

    Raises:
        UserError: an error that the user can fix.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    _check(parser, arguments)
    import_distributed()
    bundle, options = find_bundle(arguments.bundle), raster_options(arguments)
    manifest = read_manifest(bundle)
    inputs = _find(arguments, manifest, options)
    formats = formats_of(arguments, task_of(manifest)) if inputs.images else ()
    look, classes = look_of(arguments, manifest)
    pinned = pin(bundle, threads=arguments.threads, **engine_options(arguments))
    sample, out = (str(path.absolute()) for path in (inputs.sample, inputs.out))
    job = Job(pinned, sample, out, formats, look, classes)
    fingerprint = _fingerprint(job, inputs.kind, arguments, options)
    with claimed(inputs.work, inputs.out, fingerprint, arguments.resume) as work:
        report = _predict(inputs, work, job, arguments)
        if not report.failures:
            work.remove()
    line = report.line(inputs.kind, pinned.engine, arguments.out)
    counts = {"total": report.total, "before": report.before, "done": report.done}
    result = {"out": arguments.out, "engine": pinned.engine, "failures": sorted(report.failures)} | counts
    print_result(line, result, arguments.json)
    report.print_failures(inputs.kind)
    return 1 if report.failures else 0


def _find(arguments: argparse.Namespace, manifest: Manifest, options: Options) -> Inputs:
    path, out = arguments.input, arguments.out
    if not (arguments.rasters or arguments.mosaic):
        return find_images(path, out)
    require_classes(manifest, arguments.bundle, "predict-many of rasters")
    find = find_mosaic if arguments.mosaic else find_rasters
    return find(path, out, arguments.bands, options, manifest)


def _predict(inputs: Inputs, work: Work, job: Job, arguments: argparse.Namespace) -> Report:
    """Predict what an earlier run has not done."""
    images = [one for one in inputs.images if not work.is_done(one)]
    scenes = [one for one in inputs.scenes if not work.is_done(one)]
    before = inputs.total - len(inputs.failures) - len(images) - len(scenes)
    report = Report(inputs.total, before, failures=inputs.failures)
    check_outputs(work, scenes)
    if not (images or scenes):
        return report
    job = msgspec.structs.replace(job, work=str(work.run.absolute()))
    with connected(arguments.scheduler, arguments.workers, arguments.timeout) as client:
        check_workers(client, job)
        if images:
            predict_images(client, job, work, images, report)
        else:
            predict_scenes(client, job, work, scenes, report)
    return report


def _fingerprint(job: Job, kind: str, arguments: argparse.Namespace, options: Options) -> Fingerprint:
    started = {
        "bundle": job.pin.digest,
        "backend": job.pin.engine,
        "INPUT": str(arguments.input.absolute()),
        "kind of inputs": kind,
    }
    if kind == "images":
        return {**started, "--save": job.formats, "drawing": drawing_words(job.look, arguments.palette)}
    return {**started, "--bands": arguments.bands, **option_fingerprint(options)}


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse options that would be ignored.

    Raises:
        UserError: there is one.
    """
    rasters = arguments.rasters or arguments.mosaic
    for name in RESULT_OPTIONS if rasters else RASTER_OPTIONS:
        if getattr(arguments, name) != parser.get_default(name):
            option = {"legend": "no-legend"}.get(name, name.replace("_", "-"))
            raise UserError(f"--{option} is for {'images' if rasters else '--rasters and --mosaic'}")
    if arguments.scheduler is not None and arguments.workers is not None:
        raise UserError(
            "--workers is for processes of this machine; a cluster with a --scheduler has its own"
        )
    if arguments.workers is not None and arguments.workers < 1:
        raise UserError(f"--workers {arguments.workers}: give at least 1")
    if not arguments.timeout > 0:
        raise UserError(f"--timeout {arguments.timeout:g}: give seconds above 0")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="edgedistill predict-many",
        description="Predict many inputs by several processes or machines, with the results of one.",
    )
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE_OR_RUN")
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
        "--threads",
        type=int,
        default=1,
        help="CPU threads of the engine for each task (default: %(default)s)",
    )
    add_engine_options(parser)
    add_result_options(parser.add_argument_group("results of images (--probabilities: of rasters, too)"))
    add_raster_options(parser.add_argument_group("rasters"))
    add_json(parser)
    return parser
