"""Convert masks to class indices: `edgedistill masks SRC DST --map 255=1 --map ff0000=2`."""

import argparse
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deploy.command_parser import CommandParser
from deploy.errors import UserError
from deploy.evaluation.mask_mistakes import codes_of
from deploy.files.atomic import atomic_write, sibling
from deploy.files.images import list_images, read_mask, write_png
from deploy.files.json_output import add_json, print_result
from distill.data.datasets.mask_survey import refuse_lossy
from distill.data.datasets.palettes import RGB, known_by_color, palette_of
from distill.data.sample import IGNORE

Key = int | RGB


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Raises:
        UserError: an option is malformed, or a mask cannot be converted.
    """
    options = _parser().parse_args(argv)
    mapping = dict(_entry(text) for text in options.map)
    if options.target.resolve() == options.source.resolve():
        raise UserError(f"{options.target}: the masks would be replaced; give another folder")
    count = convert_masks(options.source, options.target, mapping)
    line = f"{options.target}: {count} masks of class indices"
    images = place_images(options.source, options.target)
    if images:
        line += f", with their {images} images: edgedistill run folder --data.root {options.target}"
    if (options.source / "classes.json").is_file():
        line += "; classes.json was not copied, as its values are of the old masks: write the names by index"
    print_result(line, {"out": options.target, "masks": count, "images": images}, options.json)
    return 0


def convert_masks(source: Path, target: Path, mapping: Mapping[Key, int]) -> int:
    """Write every mask of every folder `masks/` of a data set, or of a folder of masks, as a PNG of class indices.

    Args:
        source: a labeled folder, or a folder of masks.
        target: gets the masks at the same places; a mask that exists is replaced, atomically.
        mapping: from a number or a color to its class index. Where it has colors, palettes count as colors; otherwise
            numbers that it lacks stay as they are.

    Returns:
        The number of masks.

    Raises:
        UserError: there is no mask, or one holds a color that the mapping lacks, or a number beyond 255 afterwards.
    """
    folders = sorted(path for path in source.rglob("masks") if path.is_dir()) or [source]
    paths = [path for folder in folders for path in list_images(folder)]
    places: dict[Path, Path] = {}
    for path in paths:
        place = (target / path.relative_to(source)).with_suffix(".png")
        if place in places:
            raise UserError(f"{path} and {places[place]} would both become {place}; rename or remove one")
        places[place] = path
    for place, path in places.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        write_png(place, convert_mask(path, mapping))
    return len(places)


def place_images(source: Path, target: Path) -> int:
    """Put the images of every folder `images/` of a data set at the same places: linked, copied where that fails.

    Returns:
        Their number; 0 of a folder of masks.
    """
    count = 0
    for folder in sorted(path for path in source.rglob("images") if path.is_dir()):
        if target.resolve() in folder.resolve().parents:
            continue  # of an earlier call, in a folder inside of the source
        for path in list_images(folder):
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            _put(path.resolve(), place)
            count += 1
    return count


def _put(path: Path, place: Path) -> None:
    """Link a file, or copy it to another file system; what is there is replaced, atomically."""
    if place.exists() and place.samefile(path):
        return
    new = sibling(place)
    try:
        os.link(path, new)
    except OSError:
        with open(path, "rb") as image, atomic_write(place) as file:
            shutil.copyfileobj(image, file)
    else:
        new.replace(place)


def convert_mask(path: Path, mapping: Mapping[Key, int]) -> np.ndarray:
    """A mask as class indices, uint8 H×W (see `convert_masks`)."""
    refuse_lossy(path)
    mask = read_mask(path)
    colors = {key: to for key, to in mapping.items() if isinstance(key, tuple)}
    palette = palette_of(path)
    numbers = {key: to for key, to in mapping.items() if isinstance(key, int)}
    if colors and mask.ndim == 2 and palette is not None:
        used = [index for index in np.unique(mask).tolist() if index not in numbers]
        return _replaced(mask, _by_color(used, palette, colors, path) | numbers, path, "number")
    if mask.ndim == 3:
        targets = {int(codes_of(np.array(color))): to for color, to in colors.items()}
        return _replaced(codes_of(mask), targets, path, "color")
    kept = {value: value for value in np.unique(mask).tolist() if 0 <= value <= IGNORE}
    return _replaced(mask, kept | numbers, path, "number")


def _by_color(
    used: Sequence[int], palette: Sequence[RGB], colors: Mapping[RGB, int], path: Path
) -> dict[int, int]:
    """The class of each index of a palette image by its color, 255 where training would read void; not of others
    without a color.

    Raises:
        UserError: a color is none of `colors`.
    """
    found, unknown = known_by_color(used, palette, colors, (IGNORE,))
    for index in unknown:
        if index < len(palette):
            code = bytes(palette[index]).hex()
            raise UserError(
                f"{path}: holds the color {code}; say its class: --map {code}=INDEX (255 is void)"
            )
    return {index: IGNORE if to is None else to for index, to in found.items()}


def _replaced(values: np.ndarray, mapping: Mapping[int, int], path: Path, what: str) -> np.ndarray:
    found, places = np.unique(values, return_inverse=True)
    for value in found.tolist():
        if value not in mapping:
            name = f"{value:06x}" if what == "color" else str(value)
            raise UserError(
                f"{path}: holds the {what} {name}; say its class: --map {name}=INDEX (255 is void)"
            )
    return np.array([mapping[value] for value in found.tolist()], np.uint8)[places].reshape(values.shape)


def _entry(text: str) -> tuple[Key, int]:
    """`255=1` or `ff0000=1`: six hexadecimal digits are a color."""
    key, _, to = text.partition("=")
    try:
        index = int(to)
        is_color = len(key) == 6
        value = tuple(bytes.fromhex(key)) if is_color else int(key)
    except ValueError:
        index, value = -1, 0
    if not 0 <= index <= IGNORE:
        raise UserError(f"--map {text}: should be NUMBER=INDEX or RRGGBB=INDEX, with an index in 0..{IGNORE}")
    return (value[0], value[1], value[2]) if isinstance(value, tuple) else value, index


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="edgedistill masks",
        description="Convert masks to PNG files of class indices, ready to train on with their images.",
    )
    parser.add_argument("source", type=Path, metavar="SRC", help="a labeled folder, or a folder of masks")
    parser.add_argument("target", type=Path, metavar="DST", help="gets the masks at the same places")
    parser.add_argument(
        "--map", action="append", required=True, metavar="VALUE=INDEX",
        help="a number (255=1) or a color in six hexadecimal digits (ff0000=1); may be repeated",
    )  # fmt: skip
    add_json(parser)
    return parser
