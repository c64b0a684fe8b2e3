"""Compare segmentation models on the same labeled images: tables, plots, and pictures of the worst images.

    edgedistill compare RUN_OR_BUNDLE… [--data FOLDER] [--split test] [--class water] [--out DIR]

It runs models as a device does, without torch. It also needs matplotlib (`pip install 'edgedistill[bench]'`).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from deploy.analysis.collect import class_id
from deploy.command_parser import CommandParser
from deploy.errors import UserError, warnings_as_lines
from deploy.files.json_output import add_json, print_json
from deploy.heartbeat import working
from distill.compare.labeled import add_foreground
from distill.compare.measured import compare_all, measure, write_worst
from distill.compare.plots import write_plots
from distill.compare.subjects import subjects_of
from distill.compare.tables import comparison_table, summary_of, summary_table, write_tables
from distill.reporting.figures import require_matplotlib

WORST = 8


@warnings_as_lines()
def main(argv: Sequence[str]) -> int:
    """Run the command.

    Raises:
        UserError: an option, a model or the data is unsuitable, or matplotlib is not installed.
    """
    options = _parser().parse_args(argv)
    if options.worst < 0:
        raise UserError(f"--worst {options.worst}: must be 0 or more; give the number of images to draw")
    require_matplotlib("compare")
    subjects = subjects_of(options.models, options.data, options.split, options.foreground)
    positive = class_id(subjects[0].manifest.classes, options.positive)
    measured = []
    for one in subjects:
        with working(f"measuring {one.name}"):
            measured.append(measure(one, options.split, positive, options.backend, options.precision))
    pairs = compare_all(measured, options.seed)

    out: Path = options.out
    with working("tables and pictures"):
        write_tables(out, measured, pairs, positive)
        write_plots(out, measured, positive)
        write_worst(subjects, measured, options.split, positive, out / "errors", options.worst)
    if options.json:
        models = [summary_of(one, positive) for one in measured]
        differences = [
            {"first": first, "second": second, "result": result} for first, second, result in pairs
        ]
        print_json({"tables": out, "models": models, "pairs": differences})
        return 0
    print(summary_table(measured, positive))
    if pairs:
        print(f"\n{comparison_table(pairs)}")
    print(
        f"\ntables, plots and the worst images in {out}; best F1 and threshold are chosen on {options.split} itself"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="edgedistill compare", description="Compare segmentation models on the same labeled images."
    )
    parser.add_argument(
        "models", type=Path, nargs="+", metavar="RUN_OR_BUNDLE", help="of a run, its student is compared"
    )
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="labeled data for all (beside each bundle)"
    )
    parser.add_argument(
        "--split", default="test", metavar="NAME", help="folder of the data to measure on (test)"
    )
    add_foreground(parser)
    parser.add_argument(
        "--class", dest="positive", metavar="NAME", help="the class of the curves (the second of the bundle)"
    )
    parser.add_argument("--out", type=Path, default=Path("comparison"), metavar="DIR", help="(comparison)")
    parser.add_argument("--worst", type=int, default=WORST, metavar="N", help=f"images to draw ({WORST})")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap intervals (0)")
    parser.add_argument("--backend", default="auto", metavar="NAME", help="what runs the bundles (auto)")
    parser.add_argument("--precision", default="auto", metavar="NAME", help="of the models (auto)")
    add_json(parser)
    return parser
