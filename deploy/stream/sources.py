"""What `model.stream` takes: videos, cameras, network streams, images in files, and arrays; all become frames."""

import re
from collections.abc import Callable, Generator, Iterable
from glob import glob, has_magic
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import numpy as np

from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError
from deploy.inference.preprocess import require_array
from deploy.stream.capture import Frame, import_opencv, video_frames

FILES = ("http", "https", "file")
"""Schemes of URLs that are taken for files; the others are live."""


class Source(NamedTuple):
    """Where frames come from."""

    name: str
    """For messages."""
    live: bool
    """Whether frames come at a pace of their own."""
    frames: Callable[[], Generator[Frame | None, None, None]]
    """Opens it and yields its frames, or None while it waits; closing the generator releases what it holds."""


def source_of(source: Any, spec: InputSpec) -> Source:
    """Recognize a source without opening it.

    Args:
        source: a video file, an image, a folder of images or a pattern such as "shots/*.png"; a URL (rtsp://, http://);
            the number of a camera; or an iterable of images H×W×C.
        spec: the network's input, which image files are read for.

    Raises:
        UserError: it is none of these, the file does not exist, or OpenCV is missing for it.
    """
    if isinstance(source, int) and not isinstance(source, bool):
        return _video(source, f"camera {source}", is_live(source))
    if isinstance(source, str) and "://" in source:
        return _video(source, _without_password(source), is_live(source))
    if isinstance(source, str | Path):
        return _files(source, spec)
    if isinstance(source, np.ndarray) and source.ndim != 4:
        shape = "×".join(map(str, source.shape))
        raise UserError(
            f"a source is N×H×W×C or a list of images, this array is {shape}; for one image call model(image)"
        )
    if isinstance(source, Iterable):
        return Source("the source", False, lambda: _array_frames(source))
    raise UserError(
        f"cannot stream {type(source).__name__}; give a video, a folder, a pattern, a URL, a camera's number or arrays"
    )


def is_live(target: str | int) -> bool:
    """Whether the frames of a video's path, a URL or the number of a camera come at a pace of their own."""
    if isinstance(target, int):
        return True
    scheme, separator, _ = target.partition("://")
    return bool(separator) and scheme.lower() not in FILES


def _video(target: str | int, name: str, live: bool) -> Source:
    import_opencv()
    return Source(name, live, lambda: video_frames(target, name, live))


def _without_password(url: str) -> str:
    """A URL for messages and logs."""
    return re.sub(r"://[^/]*@", "://", url)


def _files(source: str | Path, spec: InputSpec) -> Source:
    # start-up time: arrays need no decoders
    from deploy.files.images import IMAGE_SUFFIXES, list_images

    path, name = Path(source), str(source)
    if path.is_dir():
        images = list_images(path)
    elif path.is_file():
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            return _video(name, name, live=False)
        images = [path]
    elif has_magic(name):
        found = glob(name, recursive=True)  # noqa: PTH207 - `Path.glob` takes no absolute pattern
        images = [Path(one) for one in sorted(found)]
        if not images:
            raise UserError(f"{name}: no file matches this pattern")
    else:
        raise UserError(f"{name}: no such file or folder")
    return Source(name, False, lambda: _image_frames(images, spec))


def _image_frames(paths: list[Path], spec: InputSpec) -> Generator[Frame, None, None]:
    from deploy.inference.image_files import read_input  # start-up time: arrays need no decoders

    start = monotonic()
    for index, path in enumerate(paths):
        image, known = read_input(path, spec)
        yield Frame(index, monotonic() - start, str(path), image, known)
        del image, known  # large ones must not live until the next are read


def _array_frames(images: Iterable[Any]) -> Generator[Frame, None, None]:
    start, index = monotonic(), 0
    try:
        for index, image in enumerate(images):
            require_array(image)
            yield Frame(index, monotonic() - start, f"frame {index}", image)
            index += 1  # if the next one fails
    except UserError as error:
        raise UserError(f"frame {index}: {error}") from error
    except Exception as error:  # of the caller's own code
        raise UserError(f"frame {index}: the source failed ({type(error).__name__}: {error})") from error
