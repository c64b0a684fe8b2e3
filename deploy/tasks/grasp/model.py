"""A loaded grasp network: images in, grasps out."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from deploy.backends.engine import Engine
from deploy.bundle.manifest import ClassInfo, InputSpec
from deploy.inference.call import Timings, as_images, run_resized, stack
from deploy.inference.preprocess import resize_nearest
from deploy.tasks.grasp.decode import decode, to_image
from deploy.tasks.grasp.pose import Camera, Poses, to_camera

COUNT = 5
"""Default maximum number of grasps per image."""


@dataclass(frozen=True, eq=False)
class GraspResult:
    """The grasps of an image H×W, or of N images. For N images `grasps` and `qualities` are lists."""

    grasps: np.ndarray | list[np.ndarray]
    """float64 M×5 in pixels of the image, the best first: x, y, angle, width, height (see
    `deploy.tasks.grasp.geometry`)."""
    qualities: np.ndarray | list[np.ndarray]
    """float64 M, in 0..1."""
    labels: np.ndarray
    """uint8 H×W or N×H×W: 1 where a grasp is good (quality ½ or more), the ignore label where there is no data."""
    valid: np.ndarray
    """bool, shaped as `labels`: pixels with data."""
    maps: np.ndarray
    """float32 4×h×w or N×4×h×w at the size of the network: quality, cos 2θ, sin 2θ, width / (½ · shorter side)."""
    timings: Timings
    _image: np.ndarray | Sequence[np.ndarray] = field(repr=False)

    def poses(self, camera: Camera, depth: np.ndarray | None = None) -> Poses:
        """The grasps of one image in space (see `deploy.tasks.grasp.pose.to_camera`).

        Args:
            camera: intrinsics of the camera that took the image.
            depth: H×W in meters, of that camera; default: the image itself, if it has one channel.

        Raises:
            UserError: `depth`, or the image in its place, is not H×W.
        """
        if depth is None:
            depth = np.asarray(self._image)
            depth = depth[..., 0] if depth.ndim == 3 and depth.shape[2] == 1 else depth
        return to_camera(np.asarray(self.grasps), depth, camera)


@dataclass(frozen=True, eq=False)
class GraspModel:
    """A network with its preprocessing and decoding. It has no mutable state, so any number of threads may call it."""

    input: InputSpec
    classes: Sequence[ClassInfo]
    engine: Engine
    ignore_label: int = 255

    def __call__(self, image: np.ndarray | Sequence[np.ndarray], count: int = COUNT) -> GraspResult:
        """Find grasps in an image, or in a batch of images.

        Args:
            image: H×W×C (or H×W for one channel), N×H×W×C, or a list of equal sizes, in raw units as for
                `deploy.tasks.segmentation.model.SegmentationModel`; resized to the network. Depth is in meters, with
                NaN where nothing was measured.
            count: maximum number of grasps per image.

        Raises:
            UserError: an image is invalid (see `check_pixels`), or the images differ in size.
        """
        images, batched = as_images(image)
        outputs, valids, watch = run_resized(images, self.input, self.engine)
        found = [self._found(m, v, count) for m, v in zip(outputs["logits"], valids, strict=True)]
        size = images[0].shape[:2]
        labels = stack(
            [
                np.where(valid, resize_nearest(good, *size), self.ignore_label).astype(np.uint8)
                for good, valid in zip(outputs["labels"], valids, strict=True)
            ]
        )
        timings, valid, maps = watch.timings(), stack(valids), outputs["logits"]
        grasps, qualities = [grasps for grasps, _ in found], [quality for _, quality in found]
        if batched:
            return GraspResult(grasps, qualities, labels, valid, maps, timings, images)
        return GraspResult(grasps[0], qualities[0], labels[0], valid[0], maps[0], timings, images[0])

    def _found(self, maps: np.ndarray, valid: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Grasps M×5 in pixels of the image and qualities M, from maps 4×h×w and `valid` at the size of the image."""
        size = (maps.shape[1], maps.shape[2])
        if not valid.any():  # without data the output of the network is meaningless
            return np.zeros((0, 5)), np.zeros(0)
        grasps, qualities = decode(maps, count=count)
        return to_image(grasps, size, (valid.shape[0], valid.shape[1])), qualities
