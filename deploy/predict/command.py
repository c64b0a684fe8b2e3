"""`edgedistill predict`: run a bundle on images, folders, patterns, stdin, a video, a camera or a stream."""

import argparse
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from deploy.bundle.bundle_files import read_manifest, require_unchanged
from deploy.bundle.find import find_bundle
from deploy.bundle.manifest import ClassInfo, Manifest
from deploy.command_parser import CommandParser
from deploy.engine_options import add_engine_options, engine_options
from deploy.errors import UserError, did_you_mean, warnings_as_lines
from deploy.files.json_output import add_json, print_json
from deploy.heartbeat import working
from deploy.loading import load
from deploy.look import Look
from deploy.predict.images import Output, predict_images, summary
from deploy.predict.record import Record
from deploy.predict.sources import Sources, sources_of
from deploy.predict.video import predict_video
from deploy.tasks.registry import task_of
from deploy.tasks.regression.model import RegressionModel
from deploy.tasks.segmentation.model import SegmentationModel
from deploy.tasks.task import Model, Task
from deploy.verbosity import is_quiet
from deploy.visualize import overlay, safe_colors, side_by_side

BESIDE = "beside"
DRAWN = ("overlay", BESIDE)
"""What a video can show; other formats are of images."""


@warnings_as_lines()
def main(argv: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0, or 1 if some of several images could not be predicted.

    Raises:
        UserError: an option, the bundle or a source is unsuitable, or the only image cannot be predicted.
    """
    options = _parser().parse_args(argv)
    bundle = find_bundle(options.bundle)
    manifest = read_manifest(bundle)
    task = task_of(manifest)
    with TemporaryDirectory(prefix="edgedistill-") as scratch:
        sources = sources_of(options.sources, Path(scratch))
        _check_out(options.out, sources)
        formats = formats_of(options, task)
        _check_kind(options, sources)
        look, classes = look_of(options, manifest)
        model = load(bundle, threads=options.threads, fallback=options.fallback, **engine_options(options))
        require_unchanged(bundle, manifest)
        if sources.moving is not None:
            return _video(model, sources.moving, options, look, classes)
        output = Output(options.out, formats, classes, look)
        return _images(model, task, sources.images, output, manifest, options)


def _images(
    model: Model,
    task: Task,
    paths: Sequence[Path],
    output: Output,
    manifest: Manifest,
    options: argparse.Namespace,
) -> int:
    made_by = {
        "bundle": manifest.digest,
        "engine": model.engine.name,
        "--save": ",".join(output.formats),
        "drawing": drawing_words(output.look, options.palette),
    }
    say = (lambda _: None) if is_quiet() or options.json else print
    with closing(Record(output.folder, made_by, options.resume)) as record, working("predicting"):
        tally = predict_images(model, task, paths, output, record, say)
    if options.json:
        print_json(tally.record(model.engine.name, output.folder))
    else:
        print(*summary(tally, len(paths), model.engine.name, output.folder), sep="\n")
    return 1 if tally.bad else 0


def _video(
    model: Model,
    target: str | int,
    options: argparse.Namespace,
    look: Look,
    classes: Sequence[ClassInfo],
) -> int:
    path = _video_path(options.out, target)
    beside = options.save is not None and BESIDE in options.save.split(",")
    found = predict_video(model, target, path, _drawing(model, look, classes, beside), options.frames)
    if options.json:
        print_json(found._asdict() | {"engine": model.engine.name, "video": path})
        return 0
    print(
        f"{found.frames} frames predicted by {model.engine.name}, {found.frames / found.seconds:.1f} frames/s, "
        f"{found.dropped} left out; video in {path}"
    )
    return 0


def _drawing(
    model: Any, look: Look, classes: Sequence[ClassInfo], beside: bool
) -> Callable[[np.ndarray, Any], np.ndarray]:
    """What draws a frame; without legend, whose width would change from frame to frame."""

    def draw(frame: np.ndarray, result: Any) -> np.ndarray:
        if isinstance(model, SegmentationModel | RegressionModel):
            picture = overlay(frame, result.labels, classes, legend=False, opacity=look.opacity)
        else:
            picture = model.draw(frame, result)
        return side_by_side(frame, picture) if beside else picture

    return draw


def _video_path(out: Path, target: str | int) -> Path:
    name = f"camera-{target}" if isinstance(target, int) else Path(target.rpartition("@")[2]).stem
    return out / f"{name or 'stream'}.mp4"


def _check_kind(options: argparse.Namespace, sources: Sources) -> None:
    """Refuse options that would be ignored: some are for images only, and one is for moving pictures.

    Raises:
        UserError: there is one, or it is out of range.
    """
    if options.frames is not None and options.frames < 1:
        raise UserError(f"--frames {options.frames}: give at least 1, the number of frames to stop after")
    if sources.moving is None:
        if options.frames is not None:
            raise UserError(f"--frames {options.frames}: is for a video, stream or camera, not for images")
        return
    saved = options.save.split(",") if options.save else []
    refused = [f"--save {name}" for name in saved if name not in DRAWN]
    refused += [f"--{name}" for name in ("probabilities", "resume") if getattr(options, name)]
    if refused:
        raise UserError(
            f"{refused[0]}: is for images; a video, stream or camera gives a video (--save {' or '.join(DRAWN)}); "
            "for other results give its frames as images"
        )


def _check_out(out: Path, sources: Sources) -> None:
    """Refuse a folder in which results would replace what is predicted."""
    for path in sources.images:
        if out.resolve() == path.parent.resolve():
            raise UserError(
                f"--out {out}: is the folder of the images, so results could overwrite them; choose another"
            )
    if isinstance(sources.moving, str):
        source, path = Path(sources.moving.removeprefix("file://")), _video_path(out, sources.moving)
        if source.exists() and path.exists() and path.samefile(source):
            raise UserError(f"--out {out}: the result would overwrite the video {source}; choose another")


RESULT_OPTIONS = ("save", "opacity", "palette", "legend")
"""Names of the options of `add_result_options`, but for `--probabilities`."""


def add_result_options(parser: argparse._ActionsContainer) -> None:
    """Add the options that say what is written of an image's result, and how it is drawn."""
    add = parser.add_argument
    add(
        "--save",
        metavar="FORMATS",
        help="with commas between: mask, overlay, beside, probabilities, npz, json, coco, geojson (mask,overlay); "
        "of grasps csv, overlay, maps, json; of regression values, overlay; of videos overlay, beside",
    )
    add(
        "--probabilities",
        action="store_true",
        help="also write the probabilities or maps, float32 .npy K×H×W",
    )
    add("--opacity", type=float, default=Look.opacity, help="weight of the class colors in overlays (0.5)")
    add("--palette", choices=("bundle", "safe"), default="bundle", help="safe: for color-blind people, too")
    add("--no-legend", dest="legend", action="store_false", help="leave the legend out of overlays")


def formats_of(options: argparse.Namespace, task: Task) -> tuple[str, ...]:
    """The formats that the options ask for, of a task.

    Raises:
        UserError: the task has no such format.
    """
    names = tuple(options.save.split(",")) if options.save else task.usual
    for name in names:
        if name not in task.formats:
            raise UserError(
                f"--save {name}: no such format{did_you_mean(name, task.formats)}; of {task.name} there are "
                f"{', '.join(task.formats)}"
            )
    return tuple(dict.fromkeys((*names, *([task.raw] if options.probabilities else []))))


def look_of(options: argparse.Namespace, manifest: Manifest) -> tuple[Look, tuple[ClassInfo, ...]]:
    """How results are drawn, and the classes with the colors to draw in.

    Raises:
        UserError: an option is out of range.
    """
    if not 0 <= options.opacity <= 1:
        raise UserError(f"--opacity {options.opacity:g}: give a weight of the colors from 0 to 1")
    classes = safe_colors(manifest.classes) if options.palette == "safe" else manifest.classes
    return Look(options.legend, options.opacity), tuple(classes)


def drawing_words(look: Look, palette: str) -> str:
    """How results are drawn, to be compared when a folder is continued."""
    return f"{look.opacity:g} {look.legend} {palette}"


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="edgedistill predict",
        description="Run a bundle on images, or on a video, camera or network stream.",
    )
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE_OR_RUN", help="of a run, its student is used")
    add(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="images, folders, patterns, - (an image from stdin); or one video, URL (rtsp://) or camera number",
    )
    add("--out", type=Path, default=Path("predictions"), help="folder for the results (predictions)")
    add_result_options(parser)
    add("--resume", action="store_true", help="leave out images that are done and unchanged")
    add("--frames", type=int, metavar="N", help="stop a video or stream after N frames")
    add_json(parser)
    add("--threads", type=int, help="CPU threads of the engine (its own choice)")
    add_engine_options(parser)
    add("--fallback", action="store_true", help="use the CPU if the requested TensorRT backend cannot run")
    return parser
