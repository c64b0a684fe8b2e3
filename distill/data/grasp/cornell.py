"""The Cornell grasp data set (Jiang et al., ICRA 2011; Lenz et al., IJRR 2015): 885 images of 640×480, 244 objects.

01/ … 10/
    pcdNNNNr.png       colors
    pcdNNNNd.tiff      depth in meters, as written by GG-CNN's generate_cornell_depth.py; if it is missing:
    pcdNNNN.txt        the point cloud (see `distill.data.grasp.point_cloud`)
    pcdNNNNcpos.txt    good grasps: four lines "x y" each, the first edge along the opening, as GG-CNN reads them
    pcdNNNNcneg.txt    bad grasps, in the same format; not used
processedData/z.txt    or z.txt: "NNNN object …", one line per image; needed to split by object
backgrounds/           ignored
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.errors import UserError
from deploy.tasks.grasp.geometry import X, Y, from_corners
from distill.config import DataConfig
from distill.data.datasets.pairs import find_root, read_text
from distill.data.grasp.files import Channels, join_channels, read_depth, read_rgb, read_rows
from distill.data.grasp.point_cloud import depth_from_cloud
from distill.data.grasp.sample import GraspSample, make_grasp_sample
from distill.data.grasp.splits import SplitBy, split_reader
from distill.data.splits import Splits

SIZE = (480, 640)
"""Height and width of every image."""
GET = "get data01 … data10 and processedData of the Cornell grasp data set, and unpack them into one folder"
_NAME = re.compile(r"pcd(\d{4})(r\.png|cpos\.txt)")


@dataclass(frozen=True)
class CornellItem:
    """Files of one image."""

    number: str
    """Four digits."""
    folder: Path
    object: str

    def path(self, ending: str) -> Path:
        """The file of this image with an ending such as "r.png"."""
        return self.folder / f"pcd{self.number}{ending}"


@dataclass(frozen=True)
class CornellReader:
    """Images of Cornell, whole or cropped to a square around their grasps."""

    items: tuple[CornellItem, ...]
    channels: Channels
    crop: int = 0
    """Side of a square crop around the mean center of the grasps, moved inside the image, as in GG-CNN (300); 0 = whole
    images. The crop uses the ground truth, at test time too: it makes scores comparable, but a device cannot do it."""

    @property
    def ids(self) -> list[str]:
        """Such as "pcd0100"."""
        return [f"pcd{item.number}" for item in self.items]

    @property
    def objects(self) -> list[str]:
        """Object of each image, numbered as in `z.txt`."""
        return [item.object for item in self.items]

    def __len__(self) -> int:
        return len(self.items)

    def files(self, index: int) -> tuple[Path, ...]:
        """The files of a sample: images and grasps."""
        item = self.items[index]
        images = [] if self.channels == "depth" else [item.path("r.png")]
        depth = [] if self.channels == "rgb" else [_depth_file(item)]
        return *images, *depth, item.path("cpos.txt")

    def __getitem__(self, index: int) -> GraspSample:
        item = self.items[index]
        rgb = None if self.channels == "depth" else read_rgb(item.path("r.png"))
        depth = None if self.channels == "rgb" else _read_depth(item)
        image, grasps = join_channels(rgb, depth, item.path("r.png")), read_rectangles(item.path("cpos.txt"))
        if self.crop:
            image, grasps = crop_around(image, grasps, self.crop)
        source = item.path("cpos.txt")
        return make_grasp_sample(image, grasps, id=self.ids[index], object=item.object, source=source)


def open_cornell(
    config: DataConfig,
    seed: int,
    channels: Channels = "depth",
    by: SplitBy = "object",
    crop: int = 300,
) -> Splits:
    """Cornell, split 80/10/10 by object or by image.

    Args:
        config: where the data is.
        seed: not used: the split is the same in every run.
        channels: what the network receives.
        by: no object in two splits, or images at random.
        crop: side of the crop around the grasps (see `CornellReader.crop`).

    Raises:
        UserError: files are missing, or the objects are unknown.
    """
    root = find_root(config, GET)
    items = find_items(root)
    for item in items:
        _check_files(item, channels)
    if by == "object" and not all(item.object for item in items):
        raise UserError(
            f"{root / 'processedData/z.txt'}: is needed to split by object; {GET}, or split by image"
        )
    return split_reader("cornell", CornellReader(items, channels, crop), channels, by)


def find_items(root: Path) -> tuple[CornellItem, ...]:
    """All images below `root`, by number; their object is "" if there is no `z.txt`.

    Raises:
        UserError: there is no image.
    """
    found = {}
    for path in root.glob("*/pcd*"):
        if match := _NAME.fullmatch(path.name):
            found[match[1]] = path.parent
    if not found:
        raise UserError(f"{root}: holds no 01/pcd0100r.png and the like; {GET}")
    objects = _read_objects(root)
    return tuple(CornellItem(number, found[number], objects.get(number, "")) for number in sorted(found))


def read_rectangles(path: Path) -> np.ndarray:
    """Grasps N×5 of a `cpos.txt` or `cneg.txt`; rectangles with NaN or without area, found in some files, are skipped.

    Raises:
        UserError: the file is missing or damaged.
    """
    points = read_rows(path, 2)
    if len(points) % 4:
        raise UserError(f"{path}: has {len(points)} corners, not four for each rectangle; get the file again")
    ring = points.reshape(-1, 4, 2)
    grasps = from_corners(ring[np.isfinite(ring).all(axis=(1, 2))])
    return grasps[(grasps[:, 3:] > 0).all(axis=1)]


def crop_around(image: np.ndarray, grasps: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Crop a square around the mean center of the grasps, or around the image center if there are none.

    Args:
        image: H×W×C.
        grasps: N×5 in pixels of the image.
        side: side of the square in pixels; it is moved inside the image, and clipped along a side that is shorter.

    Returns:
        The crop, and the grasps in its pixels.
    """
    height, width = image.shape[:2]
    x, y = grasps[:, [X, Y]].mean(axis=0) if len(grasps) else (width / 2, height / 2)
    left, top = (max(0, min(int(at) - side // 2, most - side)) for at, most in ((x, width), (y, height)))
    shifted = grasps.copy()
    shifted[:, [X, Y]] -= left, top
    return image[top : top + side, left : left + side], shifted


def _check_files(item: CornellItem, channels: Channels) -> None:
    needed = ["cpos.txt"] if channels == "depth" else ["cpos.txt", "r.png"]
    for path in map(item.path, needed):
        if not path.is_file():
            raise UserError(f"{path}: no such file, though image {item.number} has others; {GET}")
    if channels != "rgb" and not any(item.path(ending).is_file() for ending in ("d.tiff", ".txt")):
        raise UserError(f"{item.path('.txt')}: no such file, nor …d.tiff; {GET}, or use --data.channels rgb")


def _read_depth(item: CornellItem) -> np.ndarray:
    path = _depth_file(item)
    return read_depth(path) if path.suffix == ".tiff" else depth_from_cloud(path, *SIZE)


def _depth_file(item: CornellItem) -> Path:
    """The converted depth image, or else the point cloud."""
    converted = item.path("d.tiff")
    return converted if converted.is_file() else item.path(".txt")


def _read_objects(root: Path) -> dict[str, str]:
    """The first object listed for each image number; an image with several objects has several lines."""
    path = next((p for p in (root / "processedData/z.txt", root / "z.txt") if p.is_file()), None)
    objects: dict[str, str] = {}
    for number, line in enumerate(read_text(path).splitlines() if path else (), start=1):
        parts = line.split()
        if parts and (len(parts) < 2 or not parts[0].isdigit()):
            raise UserError(f"{path}, line {number}: {line[:60]!r} should begin with image and object")
        if parts:
            objects.setdefault(parts[0].zfill(4), parts[1])
    return objects
