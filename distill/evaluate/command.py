"""Score a bundle on any labeled images: metric, classes, confusion, each image, and the worst ones as pictures.

    edgedistill evaluate BUNDLE_OR_RUN DATA… [--split test] [--out DIR] [--json]

DATA is a folder (of a run, of labeled images, or with `classes.json`) or the name of a preset. Folders are read without
torch, so a device can do it. Several of them give a table of how the score shifts between domains.
"""

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.find import find_bundle
from deploy.command_parser import CommandParser
from deploy.engine_options import add_engine_options, engine_options
from deploy.errors import UserError, warnings_as_lines
from deploy.evaluation.per_image import evaluate_images
from deploy.heartbeat import working
from deploy.loading import load
from deploy.tasks.registry import task_of
from distill.compare.labeled import add_foreground
from distill.evaluate.pictures import write_worst
from distill.evaluate.result import Result
from distill.evaluate.sources import Source, source_of
from distill.evaluate.tables import class_table, shift_table, write_tables

WORST = 8


@warnings_as_lines()
def main(argv: Sequence[str]) -> int:
    """Run the command.

    Raises:
        UserError: an option, the bundle or the data is unsuitable.
    """
    options = _parser().parse_args(argv)
    if options.worst < 0:
        raise UserError(f"--worst {options.worst}: must be 0 or more; give the number of images to draw")
    bundle = find_bundle(options.bundle)
    manifest = read_manifest(bundle)
    sources = [
        source_of(given, options.split, manifest, options.root, options.foreground) for given in options.data
    ]
    task, names = task_of(manifest), [one.name for one in manifest.classes]
    model = load(bundle, threads=options.threads, **engine_options(options))
    results = []
    for source, out in zip(sources, _folders(options.out, sources), strict=True):
        with working(f"evaluating on {source.name}"):
            found = evaluate_images(model, source.samples(), partial(task.scorer, names))
        results.append(Result(source, task, manifest.classes, found))
        write_tables(out, results[-1])
        with working(f"drawing the worst images of {source.name}"):
            write_worst(out / "worst", model, results[-1], options.worst)
    if options.json:
        records = [one.record() for one in results]
        print(json.dumps({"bundle": str(bundle), "engine": model.engine.name, "data": records}))
        return 0
    print(f"{bundle} on {model.engine.name}", "", shift_table(results), sep="\n")
    if len(results) == 1 and results[0].confusion is not None:
        print("", class_table(results[0]), sep="\n")
    print(f"\ntables and the {options.worst} worst images in {options.out}")
    return 0


def _folders(out: Path, sources: Sequence[Source]) -> list[Path]:
    """The folder of each source's tables: numbered where there are several."""
    if len(sources) == 1:
        return [out]
    return [out / f"{number}-{Path(one.name).resolve().name}" for number, one in enumerate(sources, start=1)]


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="edgedistill evaluate",
        description="Score a bundle on labeled images, as a device runs it.",
    )
    parser.add_argument(
        "bundle", type=Path, metavar="BUNDLE_OR_RUN", help="of a run, its student is evaluated"
    )
    parser.add_argument(
        "data",
        nargs="+",
        metavar="DATA",
        help="folder of a run, of labeled images (images and masks, classes.json), or a preset's name; of several, the "
        "first is what the others are compared with",
    )
    parser.add_argument("--split", metavar="NAME", help="(test; all images of a folder that is not split)")
    add_foreground(parser)
    parser.add_argument("--root", type=Path, metavar="FOLDER", help="where a preset's data lies")
    parser.add_argument("--out", type=Path, default=Path("evaluation"), metavar="DIR", help="(evaluation)")
    parser.add_argument("--worst", type=int, default=WORST, metavar="N", help=f"images to draw ({WORST})")
    parser.add_argument("--threads", type=int, help="CPU threads of the engine (its own choice)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, nothing else")
    add_engine_options(parser)
    return parser
