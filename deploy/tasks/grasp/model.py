"""A loaded grasp network: images in, grasps out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deploy.backends.engine import Engine
from deploy.bundle.manifest import ClassInfo, InputSpec
from deploy.inference.call import Prepared, Timings, as_images, prepared, run_prepared, stack
from deploy.inference.postprocess import restore_labels
from deploy.stream.calls import Calls
from deploy.tasks.grasp.decode import decode, to_image
from deploy.tasks.grasp.pose import Camera, Poses, to_camera
from deploy.tasks.result import OneResult

COUNT = 5
"""Default maximum number of grasps per image."""


@dataclass(frozen=True, eq=False)
class GraspResult(OneResult):
    """The grasps of an image H×W, or of N images. For N images `grasps` and `qualities` are lists.

    `save` writes `.png`: the grasps on the image (the one that was predicted, unless another is given), and `.csv`.
    """

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
    _image: np.ndarray | Sequence[np.ndarray] | str | Path = field(repr=False)

    def poses(self, camera: Camera, depth: np.ndarray | None = None) -> Poses:
        """The grasps of one image in space (see `deploy.tasks.grasp.pose.to_camera`).

        Args:
            camera: intrinsics of the camera that took the image.
            depth: H×W in meters, of that camera; default: the image itself, if it has one channel.

        Raises:
            UserError: `depth`, or the image in its place, is not H×W; or the result is of a batch.
        """
        self._require_one("poses")
        if depth is None:
            depth = np.asarray(self._image)
            depth = depth[..., 0] if depth.ndim == 3 and depth.shape[2] == 1 else depth
        return to_camera(np.asarray(self.grasps), depth, camera)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each grasp, the best first: x, y, angle in radians, width, height, quality."""
        self._require_one("rows")
        names = ("x", "y", "angle", "width", "height", "quality")
        values = np.column_stack([np.asarray(self.grasps), np.asarray(self.qualities)]).tolist()
        return [dict(zip(names, row, strict=True)) for row in values]

    def _drawn(self, image: np.ndarray | None) -> np.ndarray:
        image = np.asarray(self._image) if image is None else image
        return drawn(image, self)

    def _writers(self) -> Mapping[str, Callable[[Path, np.ndarray | None], object]]:
        # start-up time: most programs write nothing
        from deploy.files.images import write_png
        from deploy.tasks.grasp.labeled import write_csv

        return {
            ".png": lambda path, image: write_png(path, self._drawn(image)),
            ".csv": lambda path, _: write_csv(path, np.asarray(self.grasps), np.asarray(self.qualities)),
        }


@dataclass(frozen=True, eq=False)
class GraspModel(Calls[GraspResult]):
    """A network with its preprocessing and decoding. It has no mutable state, so any number of threads may call it."""

    input: InputSpec
    classes: Sequence[ClassInfo]
    engine: Engine
    ignore_label: int = 255

    def __call__(
        self, image: np.ndarray | Sequence[np.ndarray] | str | Path, count: int = COUNT
    ) -> GraspResult:
        """Find grasps in an image, or in a batch of images.

        Args:
            image: an image file, or H×W×C (or H×W for one channel), N×H×W×C, or a list of equal sizes, in raw units as
                for `deploy.tasks.segmentation.model.SegmentationModel`; resized to the network. Depth is in meters,
                with NaN where nothing was measured.
            count: maximum number of grasps per image.

        Raises:
            UserError: an image is invalid (see `check_pixels`), or the images differ in size.
        """
        if isinstance(image, str | Path):
            return self.file(image)
        images, batched = as_images(image)
        results = self.predict([self.prepare(one) for one in images], count)
        if not batched:
            return results[0]
        grasps, qualities = (
            [np.asarray(getattr(one, name)) for one in results] for name in ("grasps", "qualities")
        )
        labels, valid, maps = (
            stack([getattr(one, name) for one in results]) for name in ("labels", "valid", "maps")
        )
        return GraspResult(grasps, qualities, labels, valid, maps, results[0].timings, images)

    def prepare(self, image: np.ndarray) -> Prepared:
        """See `deploy.stream.calls.Calls.prepare`."""
        return prepared(image, self.input)

    def predict(self, images: Sequence[Prepared], count: int = COUNT) -> list[GraspResult]:
        """See `deploy.stream.calls.Calls.predict`; `count` is the maximum number of grasps per image."""
        outputs, watch = run_prepared(images, self.engine)
        pairs = zip(outputs["logits"], images, strict=True)
        found = [self._found(maps, image.valid, count) for maps, image in pairs]
        pairs = zip(outputs["labels"], images, strict=True)
        labels = [restore_labels(good, image.valid, self.ignore_label) for good, image in pairs]
        timings = watch.timings()
        parts = zip(found, labels, outputs["logits"], images, strict=True)
        return [
            GraspResult(grasps, qualities, label, image.valid, maps, timings, image.image)
            for (grasps, qualities), label, maps, image in parts
        ]

    def draw(self, image: np.ndarray, result: GraspResult) -> np.ndarray:
        """See `deploy.stream.calls.Calls.draw`: the grasps as rectangles on the image."""
        return drawn(image, result)

    def _found(self, maps: np.ndarray, valid: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Grasps M×5 in pixels of the image and qualities M, from maps 4×h×w and `valid` at the size of the image."""
        size = (maps.shape[1], maps.shape[2])
        if not valid.any():  # without data the output of the network is meaningless
            return np.zeros((0, 5)), np.zeros(0)
        grasps, qualities = decode(maps, count=count)
        return to_image(grasps, size, (valid.shape[0], valid.shape[1])), qualities


def drawn(image: np.ndarray, result: GraspResult) -> np.ndarray:
    """The grasps of one image as rectangles on an image H×W×C or H×W, as RGB uint8."""
    from deploy.tasks.grasp.draw import draw_grasps  # start-up time: most programs draw nothing
    from deploy.visualize import render  # the same

    picture = render(image if image.ndim == 3 else image[..., None])
    return draw_grasps(picture, np.asarray(result.grasps), np.asarray(result.qualities))
