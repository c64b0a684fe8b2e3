"""From an image of any size to the array that the network reads: the one definition, for training and device alike.

Pixels keep their raw units and normalization is part of the graph, unless it is by numbers of the image or the patch
(`deploy.inference.normalize`).
"""

import msgspec
import numpy as np
from PIL import Image

from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError
from deploy.inference.depth import center, fill_holes, warn_of_millimeters
from deploy.inference.normalize import fill_of, filled, standardized


def prepare(image: np.ndarray, spec: InputSpec) -> tuple[np.ndarray, np.ndarray]:
    """Turn an image H0×W0×C (H0×W0 where there is one channel) into the network's input by resizing it.

    Returns the input, of `spec.dtype` and contiguous, H×W×C (NHWC) or C×H×W (NCHW) at the size of `spec`; and the
    bool mask H0×W0 of pixels that carry data. A uint8 image of the network's size is passed through without a copy.
    Raises `UserError` as `check_pixels` does.
    """
    pixels, valid = check_pixels(image, spec)
    pixels = resize(pixels, spec.height, spec.width)
    if spec.depth is not None:
        pixels = np.array(pixels, np.float32)  # not the image itself
        pixels[..., spec.depth] = center(pixels[..., spec.depth])
    return to_network(pixels, spec), valid


def check_pixels(image: np.ndarray, spec: InputSpec) -> tuple[np.ndarray, np.ndarray]:
    """Check an image, which must be whole, against `spec` and put `spec.mean` where there is no data.

    Where `spec` normalizes by the image, that is done here, and no data is 0; where by the patch, no data stays NaN
    until `to_network`.

    Returns H0×W0×C of `spec.dtype` and the bool mask H0×W0 of pixels that carry data: a pixel does not when any of its
    channels is NaN or infinite, and then all of them are replaced. A channel of depth is filled from around its holes
    instead (`deploy.inference.depth`), and warned of where it cannot be meters. The image itself is never changed.

    Raises `UserError` for a wrong number of channels, an empty image, a dtype whose range would have to be guessed
    (anything but uint8 where the network reads uint8), and no-data pixels where the bundle knows none.
    """
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
        return image, np.ones(image.shape[:2], bool)
    if image.dtype.kind not in "fiu":
        raise UserError(f"image is {image.dtype}, the bundle wants real numbers that fit float32")
    return _fill_nodata(image.astype(np.float32, copy=False), spec)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize H0×W0×C of finite real numbers to `height`×`width`×C, of the same dtype. Same size: no copy.

    Where no side grows, each pixel is the mean of those pixels whose centers lie in its area (Pillow's BOX), which is
    the exact mean over areas when the sizes are multiples; otherwise it is bilinear, pixel centers at half positions,
    and a side that shrinks all the same is smoothed first (Pillow's BILINEAR). Figures of uint8 may be off by one, as
    both sides are rounded in turn; the other dtypes are as exact as float32.
    """
    if image.shape[:2] == (height, width):
        return image
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return _resize_pillow(image, height, width, method)
    # Pillow resizes no other images of several channels, or multiplies them by their fourth.
    planes = [image[..., channel] for channel in range(image.shape[2])]
    if image.dtype != np.uint8:
        planes = [plane.astype(np.float32) for plane in planes]
    resized = np.stack([_resize_pillow(plane, height, width, method) for plane in planes], axis=2)
    if image.dtype.kind in "iu" and resized.dtype == np.float32:
        np.rint(resized, out=resized)
    return resized.astype(image.dtype, copy=False)


def resize_nearest(labels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize labels H0×W0, of any dtype, to `height`×`width`: the label under the center of each pixel.

    Where a center lies between two pixels, the lower or the right one counts. Same size: no copy.
    """
    if labels.shape == (height, width):
        return labels
    rows, columns = _under_centers(labels.shape[0], height), _under_centers(labels.shape[1], width)
    # Columns are the dear part, so they are picked where there are fewer rows.
    if height < labels.shape[0]:
        return labels.take(rows, axis=0).take(columns, axis=1)
    return labels.take(columns, axis=1).take(rows, axis=0)


def to_network(pixels: np.ndarray, spec: InputSpec) -> np.ndarray:
    """The last step: …×H×W×C in the network's layout, each normalized by its own numbers where `spec` wants it.

    Contiguous: …×C×H×W for NCHW; as it is for NHWC.
    """
    if spec.normalize == "patch":
        patches = pixels.reshape(-1, *pixels.shape[-3:])
        pixels = np.stack([standardized(patch) for patch in patches]).reshape(pixels.shape)
    return np.ascontiguousarray(np.moveaxis(pixels, -1, -3) if spec.layout == "NCHW" else pixels)


def _resize_pillow(pixels: np.ndarray, height: int, width: int, method: Image.Resampling) -> np.ndarray:
    """`pixels` uint8 H×W×3 or H×W, or float32 H×W; the result is writable."""
    return np.array(Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), method))


def _under_centers(old: int, new: int) -> np.ndarray:
    """Along one axis the index, of `old` pixels, under the center of each of `new`; exact, as it is in integers."""
    return (2 * np.arange(new) + 1) * old // (2 * new)


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
            f"image has {count} pixels that are NaN or infinite and the bundle knows no no-data value; clean it first"
        )
    return filled(image, valid, fill_of(spec.mean, spec.normalize), spec.normalize), valid


def _plural(channels: int) -> str:
    return "1 channel" if channels == 1 else f"{channels} channels"
