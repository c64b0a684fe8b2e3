"""From an image of any size to the array that the network reads: the only definition, shared by training and devices.

Pixels keep their raw units and normalization is part of the graph, unless it uses statistics of the image or the patch
(`deploy.inference.normalize`).
"""

from functools import lru_cache
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError
from deploy.inference.area_mean import shrink
from deploy.inference.depth import center, fill_holes, warn_of_millimeters
from deploy.inference.normalize import fill_of, filled, standardized


def prepare(image: np.ndarray, spec: InputSpec) -> tuple[np.ndarray, np.ndarray]:
    """Turn an image into the network's input by resizing it.

    Args:
        image: H0×W0×C, or H0×W0 for one channel. A uint8 image of the network's size is passed through without a copy.
        spec: the network's input.

    Returns:
        The input, of `spec.dtype` and contiguous, H×W×C (NHWC) or C×H×W (NCHW) at the size of `spec`; and the bool mask
        H0×W0 of pixels that carry data.

    Raises:
        UserError: as `check_pixels` does.
    """
    pixels, valid = check_pixels(image, spec)
    pixels = _fitted(pixels, spec.height, spec.width)
    if spec.depth is not None:
        pixels = np.array(pixels, np.float32)  # not the image itself
        pixels[..., spec.depth] = center(pixels[..., spec.depth])
    return to_network(pixels, spec), valid


def check_pixels(image: np.ndarray, spec: InputSpec) -> tuple[np.ndarray, np.ndarray]:
    """Check an image against `spec` and replace its pixels without data by `spec.mean` (see `fill_of`).

    A pixel carries no data when any of its channels is NaN or infinite; then all of them are replaced. If `spec`
    normalizes by the image, that is done here, and such pixels become 0; if by the patch, they stay NaN until
    `to_network`. Holes in a depth channel are filled from their surroundings instead (`deploy.inference.depth`), with a
    warning where depth cannot be meters. The image itself is never changed.

    Args:
        image: the whole image, H0×W0×C, or H0×W0 for one channel.
        spec: the network's input.

    Returns:
        H0×W0×C of `spec.dtype`, and the bool mask H0×W0 of pixels that carry data, read-only where all do by its type.

    Raises:
        UserError: the number of channels is wrong, the image is empty, its dtype is one whose range would have to be
            guessed (anything but uint8 where the network reads uint8), or it has pixels without data and the bundle
            allows none.
    """
    require_array(image)
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or image.size == 0:
        raise UserError(f"an image is H×W or H×W×C and not empty; this array has shape {image.shape}")
    if image.shape[2] != len(spec.channels):
        found, names = image.shape[2], ", ".join(spec.channels)
        raise UserError(f"image has {_plural(found)}, the bundle wants {len(spec.channels)} ({names})")
    if spec.dtype == "uint8":
        if image.dtype != np.uint8:
            raise UserError(
                f"image is {image.dtype}, the bundle wants uint8 with values 0..255; convert it first"
            )
        return image, _all_valid(image.shape[:2])
    if image.dtype.kind not in "fiu":
        raise UserError(f"image is {image.dtype}, the bundle wants real numbers that fit float32")
    return _fill_nodata(image.astype(np.float32, copy=False), spec)


def require_array(image: object) -> None:
    """Refuse what is no array, with what to call instead.

    Raises:
        UserError: it is none.
    """
    if isinstance(image, np.ndarray):
        return
    kind = f"expected an array or a list of arrays, got {type(image).__name__}"
    if isinstance(image, str | Path):
        raise UserError(
            f"{kind} among several; call model(path) for each file, or model.stream for a folder or 'shots/*.png'"
        )
    if hasattr(image, "__array_interface__") or hasattr(image, "__array__"):
        # such as Pillow's images, which may be palettes or have an alpha channel
        raise UserError(f"{kind}; give numpy.asarray(image), whose channels are those of the bundle")
    raise UserError(f"{kind}; see deploy.files.images.read_image")


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize H0×W0×C of finite real numbers to `height`×`width`×C of the same dtype; not copied if the size is equal.

    If neither side grows, each pixel is the mean of the pixels whose centers lie in its area (Pillow's BOX), which is
    the exact area mean when the sizes are multiples. Otherwise the resize is bilinear, with pixel centers at half
    positions, and a side that shrinks is smoothed (Pillow's BILINEAR). Values of uint8 may be off by one, because each
    axis is rounded in turn; other dtypes are as exact as float32.
    """
    if image.shape[:2] == (height, width):
        return image
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return _resize_pillow(image, height, width, method)
    # Pillow cannot resize other images of several channels, or multiplies them by the fourth.
    planes = [image[..., channel] for channel in range(image.shape[2])]
    if image.dtype != np.uint8:
        planes = [plane.astype(np.float32) for plane in planes]
    resized = np.stack([_resize_pillow(plane, height, width, method) for plane in planes], axis=2)
    if image.dtype.kind in "iu" and resized.dtype == np.float32:
        np.rint(resized, out=resized)
    return resized.astype(image.dtype, copy=False)


def resize_nearest(labels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize labels H0×W0 of any dtype to `height`×`width`: each pixel takes the label under its center.

    If a center lies between two pixels, the lower or the right one counts. Not copied if the size is equal.
    """
    if labels.shape == (height, width):
        return labels
    rows, columns = _under_centers(labels.shape[0], height), _under_centers(labels.shape[1], width)
    times = np.bincount(
        columns, minlength=labels.shape[1]
    )  # columns[i] never falls; three times as fast as an index
    # Repeating columns is the expensive step, so it runs where there are fewer rows.
    if height < labels.shape[0]:
        return np.repeat(labels.take(rows, axis=0), times, axis=1)
    return np.repeat(labels, times, axis=1).take(rows, axis=0)


def to_network(pixels: np.ndarray, spec: InputSpec) -> np.ndarray:
    """The last step: bring …×H×W×C to the network's layout, each normalized by itself if `spec` says "patch".

    Returns:
        A contiguous array: …×C×H×W for NCHW, …×H×W×C for NHWC.
    """
    if spec.normalize == "patch":
        patches = pixels.reshape(-1, *pixels.shape[-3:])
        pixels = np.stack([standardized(patch) for patch in patches]).reshape(pixels.shape)
    return np.ascontiguousarray(np.moveaxis(pixels, -1, -3) if spec.layout == "NCHW" else pixels)


def _fitted(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """`resize`, faster where frames of one size come again and again."""
    # Not in `resize` itself: that one also runs in the forked worker processes of a training.
    if image.dtype == np.uint8 and image.shape[0] >= height and image.shape[1] >= width:
        small = shrink(image, height, width)
        if small is not None:
            return small
    return resize(image, height, width)


def _resize_pillow(pixels: np.ndarray, height: int, width: int, method: Image.Resampling) -> np.ndarray:
    """`pixels` uint8 H×W×3 or H×W, or float32 H×W; the result is writable."""
    return np.array(Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), method))


def _under_centers(old: int, new: int) -> np.ndarray:
    """Along one axis, the index of the `old` pixel under the center of each `new` one; exact, in integers."""
    return (2 * np.arange(new) + 1) * old // (2 * new)


@lru_cache(maxsize=4)
def _all_valid(size: tuple[int, int]) -> np.ndarray:
    """A mask that is True everywhere, read-only: fresh memory for each frame would cost a millisecond."""
    mask = np.ones(size, bool)
    mask.flags.writeable = False
    return mask


def _fill_nodata(image: np.ndarray, spec: InputSpec) -> tuple[np.ndarray, np.ndarray]:
    if spec.depth is not None:
        warn_of_millimeters(image[..., spec.depth])
        depth, measured = fill_holes(image[..., spec.depth])
        image = np.array(image)
        image[..., spec.depth] = depth
        rest, valid = _fill_nodata(image, msgspec.structs.replace(spec, depth=None))
        return rest, valid & measured
    valid: np.ndarray = np.all(np.isfinite(image), axis=2)
    if spec.nodata is None and not valid.all():
        count = valid.size - np.count_nonzero(valid)
        raise UserError(
            f"image has {count} pixels that are NaN or infinite and the bundle allows no missing data; clean it first"
        )
    return filled(image, valid, fill_of(spec), spec.normalize), valid


def _plural(channels: int) -> str:
    return "1 channel" if channels == 1 else f"{channels} channels"
