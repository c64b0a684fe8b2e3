"""Cut a folder of large images and masks into tiles: `edgedistill tiles SRC DST [--size 256] [--stride 256]`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from deploy.command_parser import CommandParser
from deploy.errors import UserError
from deploy.files.json_output import add_json, print_result, words_to_stderr
from distill.tiles.cutting import Tiling, cut_folder


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Raises:
        UserError: an option is out of range, or the folders are unsuitable.
    """
    options = _parser().parse_args(argv)
    size = _sides("size", options.size)
    stride = _sides("stride", options.stride) if options.stride else size
    if not 0 <= options.max_no_data <= 1:
        raise UserError(f"--max-no-data {options.max_no_data}: must be a fraction in 0..1")
    tiling, target = Tiling(size, stride, options.max_no_data), options.target
    with words_to_stderr(options.json):
        splits = []
        for one in cut_folder(options.source, target, tiling):
            print(f"{one.split}: {one.tiles} tiles of {one.images} images")
            splits.append({"split": one.split, "tiles": one.tiles, "images": one.images})
    table = target / "tiles.csv"
    line = f"{table} lists them; train with: edgedistill run folder --data.root {target}"
    print_result(line, {"list": table, "splits": splits}, options.json)
    return 0


def _sides(name: str, given: Sequence[int]) -> tuple[int, int]:
    if len(given) > 2 or min(given) < 1:
        raise UserError(f"--{name} {' '.join(map(str, given))}: give a side, or height and width, in pixels")
    return given[0], given[-1]


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="edgedistill tiles", description="Cut large images and their masks into tiles to train on."
    )
    parser.add_argument(
        "source", type=Path, metavar="SRC", help="images/ and masks/, or train/, val/, test/ with these"
    )
    parser.add_argument("target", type=Path, metavar="DST", help="a new folder, or one to continue")
    parser.add_argument("--size", type=int, nargs="+", default=[256], help="side, or height and width (256)")
    parser.add_argument("--stride", type=int, nargs="+", help="distance from one tile to the next (the size)")
    parser.add_argument(
        "--max-no-data", type=float, default=1.0, metavar="SHARE",
        help="leave out tiles with a larger share of no data (1: only those without any data)",
    )  # fmt: skip
    add_json(parser)
    return parser
