"""Write the page of a finished run, or of several to compare: `edgedistill report RUN… [--out FILE]`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from deploy.command_parser import CommandParser
from deploy.errors import UserError, warnings_as_lines
from deploy.files.json_output import add_json, print_result, words_to_stderr
from deploy.heartbeat import working
from distill.page.render import FILE, write_page
from distill.page.viewer import EACH
from distill.reporting.figures import require_matplotlib


@warnings_as_lines()
def main(argv: Sequence[str]) -> int:
    """Run the command.

    Raises:
        UserError: a folder is no finished run, the runs cannot be compared, or matplotlib is not installed.
    """
    options = _parser().parse_args(argv)
    if options.images < 1:
        raise UserError(
            f"--images {options.images}: must be 1 or more; give the number of images of each kind"
        )
    require_matplotlib("report")
    several = len(options.runs) > 1
    path = options.out or (Path(FILE) if several else options.runs[0] / FILE)
    with words_to_stderr(options.json), working("predicting the test images and drawing"):
        write_page(options.runs, path, options.images)
    size = path.stat().st_size
    line = f"{path}: open it in a browser ({size / 1e6:.1f} MB, needs no network)"
    print_result(line, {"file": path, "bytes": size}, options.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="edgedistill report",
        description="Write a page of a finished run, or one that compares several: a single HTML file.",
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a finished run")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"(RUN/{FILE}; of several runs ./{FILE})")
    parser.add_argument(
        "--images",
        type=int,
        default=EACH,
        metavar="N",
        help=f"of the worst, the median and the best ({EACH})",
    )
    add_json(parser)
    return parser
