"""Write a network's predictions as masks for people to correct: `edgedistill label BUNDLE FOLDER [--out DIR]`.

It runs the network as a device does, without torch. `next.csv` in the result says which images to label first.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.find import find_bundle
from deploy.bundle.manifest import MANIFEST, Manifest
from deploy.command_parser import CommandParser
from deploy.engine_options import add_engine_options, engine_options
from deploy.errors import UserError, warnings_as_lines
from deploy.files.json_output import add_json, print_json, words_to_stderr
from deploy.files.staging import staged
from deploy.heartbeat import counted, working
from deploy.inference.image_files import output_names
from deploy.loading import load
from deploy.tasks.registry import require_classes
from deploy.text import shown
from distill.data.datasets.image_folder import find_images
from distill.labeling.files import RANKING, check_new, remove_pair, write_classes, write_pair, write_ranking
from distill.labeling.prediction import Prediction, predict_image

TEACHER = "teacher.bundle"
SHOWN = 5
"""Images to label next that are printed."""


@warnings_as_lines()
def main(argv: Sequence[str]) -> int:
    """Run the command.

    Raises:
        UserError: an option, a bundle or the folder is unsuitable, or no image can be predicted.
    """
    options = _parser().parse_args(argv)
    if not 0 <= options.min_confidence < 1:
        raise UserError(f"--min-confidence {options.min_confidence:g}: must be at least 0 and below 1")
    if options.first < 0:
        raise UserError(f"--first {options.first}: must be 0 or more; give the number of images to write")
    check_new(options.out)
    bundles = [_opened(_labeling(options.bundle))]
    if options.second is not None:
        bundles.append(_opened(find_bundle(options.second)))
    manifest = _common_manifest(bundles)
    images = find_images(options.folder, manifest.input.channels)
    stems = output_names([image.paths[0] for image in images])
    models = [load(path, threads=options.threads, **engine_options(options)) for path, _ in bundles]
    with (
        words_to_stderr(options.json),
        staged(options.out) as staging,
        working(f"labeling the images of {options.folder}"),
    ):
        predicted: list[tuple[Prediction, str]] = []
        for image, stem in counted(list(zip(images, stems, strict=True))):
            try:
                mask, prediction = predict_image(image, *_two(models), options.min_confidence)
            except UserError as error:
                print(f"error: {shown(str(error))}", file=sys.stderr)
                continue
            write_pair(staging, stem, image, mask)
            predicted.append((prediction, stem))
        ranked = _ranked(predicted, options.folder)
        kept = ranked[: options.first or None]
        for _, stem in ranked[len(kept) :]:
            remove_pair(staging, stem)
        names = [stem if place < len(kept) else "" for place, (_, stem) in enumerate(ranked)]
        write_ranking(staging, [one for one, _ in ranked], names, manifest)
        write_classes(staging, manifest)
    if options.json:
        print_json(_result(ranked, len(kept), len(images), options.out))
    else:
        _report(ranked, len(kept), len(images), options.out)
    return 0 if len(ranked) == len(images) else 1


def _ranked(predicted: list[tuple[Prediction, str]], folder: Path) -> list[tuple[Prediction, str]]:
    if not predicted:
        raise UserError(f"{folder}: none of its images could be labeled; see the errors above")
    return sorted(predicted, key=lambda pair: pair[0].urgency)


def _result(ranked: Sequence[tuple[Prediction, str]], kept: int, count: int, out: Path) -> dict[str, object]:
    """What `--json` prints; the images to label first at the top of `ranking`."""
    ranking = [
        {"image": one.name, "confidence": one.confidence, "disagreement": one.disagreement}
        for one, _ in ranked
    ]
    return {"out": out, "images": count, "labeled": len(ranked), "masks": kept, "ranking": ranking}


def _report(ranked: Sequence[tuple[Prediction, str]], kept: int, count: int, out: Path) -> None:
    for one, _ in ranked[:SHOWN]:
        differs = (
            "" if one.disagreement is None else f", the networks disagree on {100 * one.disagreement:.1f} %"
        )
        print(f"{shown(one.name)}  confidence {one.confidence:.3f}{differs}")
    more = f"; {out / RANKING} has all, the ones to label first at its top" if len(ranked) > SHOWN else ""
    print(f"{len(ranked)} of {count} images labeled{more}")
    print(f"{kept} masks to correct in {out}; train with: edgedistill run folder --data.root {out}")


def _two(models: Sequence[Any]) -> tuple[Any, Any]:
    return models[0], models[1] if len(models) > 1 else None


def _labeling(path: Path) -> Path:
    """The bundle in a folder: itself, or of a run its teacher, or its student where the run has no such bundle."""
    is_run = not (path / MANIFEST).is_file() and (path / TEACHER).is_dir()
    return path / TEACHER if is_run else find_bundle(path)


def _opened(bundle: Path) -> tuple[Path, Manifest]:
    manifest = read_manifest(bundle)
    require_classes(manifest, bundle, "label")
    return bundle, manifest


def _common_manifest(bundles: Sequence[tuple[Path, Manifest]]) -> Manifest:
    """The manifest of the first bundle; a second one must be of the same classes and channels."""
    (first, manifest), *others = bundles
    for path, other in others:
        if other.digest == manifest.digest:
            raise UserError(
                f"--second {path}: is the same network as {first}, with which it agrees; give another"
            )
        for what, theirs, ours in (
            ("classes", [one.name for one in other.classes], [one.name for one in manifest.classes]),
            ("channels", list(other.input.channels), list(manifest.input.channels)),
        ):
            if theirs != ours:
                raise UserError(
                    f"--second {path}: has the {what} {', '.join(theirs)}, {first} has {', '.join(ours)}; only networks"
                    " of the same can be compared"
                )
    return manifest


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="edgedistill label",
        description="Write a network's predictions as masks to correct, and a list of which images to label first.",
    )
    parser.add_argument(
        "bundle", type=Path, metavar="BUNDLE_OR_RUN", help="of a run, its teacher labels, or else its student"
    )
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="images, or one folder of images for each channel"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("labels"), metavar="DIR", help="a new folder (labels)"
    )
    parser.add_argument(
        "--second",
        type=Path,
        metavar="BUNDLE_OR_RUN",
        help="rank images by where this one (of a run, its student) disagrees",
    )
    parser.add_argument(
        "--min-confidence",
        type=float,
        default=0.0,
        metavar="P",
        help="void below this probability (0: never)",
    )
    parser.add_argument(
        "--first",
        type=int,
        default=0,
        metavar="N",
        help="write masks of the N images to label first (0: of all)",
    )
    parser.add_argument("--threads", type=int, help="CPU threads of the engine (its own choice)")
    add_engine_options(parser)
    add_json(parser)
    return parser
