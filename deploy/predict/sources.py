"""What `edgedistill predict` is given: images in files, folders and patterns, stdin, and moving pictures."""

import sys
from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import NamedTuple

from deploy.errors import UserError
from deploy.files.images import IMAGE_SUFFIXES, list_images
from deploy.files.received import written

STDIN = "-"
CAMERA = "/dev/video"


class Sources(NamedTuple):
    """Either images or one moving picture."""

    images: list[Path]
    """In the order given, none of them twice."""
    moving: str | int | None
    """A video file, a URL, or the number of a camera, as `model.stream` takes it."""


def sources_of(given: Sequence[str], scratch: Path) -> Sources:
    """Recognize what was given.

    Args:
        given: images, folders, patterns such as "shots/*.png", "-" for an image from stdin; or one of a video file, a
            URL (rtsp://, http://), a camera's number or its device.
        scratch: folder for the image from stdin.

    Raises:
        UserError: something does not exist, a pattern matches no image, or a moving picture is not alone.
    """
    moving = [one for one in given if is_moving(one)]
    if moving and len(given) > 1:
        raise UserError(f"{moving[0]}: give a video, stream or camera alone; images can be several")
    if moving:
        return Sources([], _target(moving[0]))
    found = [path for one in given for path in _images(one, scratch)]
    return Sources(list(dict.fromkeys(found)), None)


def is_moving(given: str) -> bool:
    """Whether it is a video, a stream or a camera."""
    if given.isdecimal() and not Path(given).exists():
        return True
    if "://" in given or given.startswith(CAMERA):
        return True
    path = Path(given)
    return path.is_file() and path.suffix.lower() not in IMAGE_SUFFIXES


def _target(given: str) -> str | int:
    number = given.removeprefix(CAMERA)
    return int(number) if number.isdecimal() and not Path(number).is_file() else given


def _images(given: str, scratch: Path) -> list[Path]:
    path = Path(given)
    if given == STDIN:
        return [_from_stdin(scratch)]
    if path.is_dir():
        return list_images(path)
    if path.exists() or not has_magic(given):
        return [path]  # a missing file is told by its reader
    found = [Path(one) for one in sorted(glob(given, recursive=True))]  # noqa: PTH207 - absolute patterns, too
    images = [one for one in found if one.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise UserError(f"{given}: matches no image; looked for {', '.join(IMAGE_SUFFIXES)}")
    return images


def _from_stdin(scratch: Path) -> Path:
    if sys.stdin is None or sys.stdin.isatty():
        raise UserError("-: reads an image from stdin; pipe one into the command")
    content = sys.stdin.buffer.read()
    if not content:
        raise UserError("-: stdin is empty; pipe an image into the command")
    return written(content, scratch, "stdin")
