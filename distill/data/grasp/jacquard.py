"""Jacquard (Depierre et al., IROS 2018, arXiv:1803.11469): rendered objects of ShapeNet, 1024×1024.

…/OBJECT/                           at any depth, such as Jacquard_Dataset_0/OBJECT/
    K_OBJECT_RGB.png
    K_OBJECT_perfect_depth.tiff     meters
    K_OBJECT_stereo_depth.tiff      as measured by a simulated stereo camera, with holes
    K_OBJECT_grasps.txt             x;y;theta;opening;jaw: pixels, and degrees clockwise as seen in the image
    K_OBJECT_mask.png               not used
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from deploy.errors import UserError
from deploy.tasks.grasp.geometry import ANGLE
from distill.config import DataConfig
from distill.data.datasets.pairs import find_root
from distill.data.grasp.files import Channels, join_channels, read_depth, read_rgb, read_rows
from distill.data.grasp.sample import GraspSample, make_grasp_sample
from distill.data.grasp.splits import SplitBy, split_reader
from distill.data.splits import Splits

GET = "get Jacquard from https://jacquard.liris.cnrs.fr and unpack its parts into one folder"
GRASPS = "_grasps.txt"

DepthKind = Literal["perfect", "stereo"]


@dataclass(frozen=True)
class JacquardReader:
    """Images of Jacquard."""

    paths: tuple[Path, ...]
    """The grasp file of each image."""
    channels: Channels
    depth: DepthKind = "perfect"

    @property
    def ids(self) -> list[str]:
        """Such as "0_1a1ec1cfe633adcdebbf11b1629fc16a"."""
        return [_stem(path) for path in self.paths]

    @property
    def objects(self) -> list[str]:
        """Object of each image: the name of its folder."""
        return [path.parent.name for path in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def files(self, index: int) -> tuple[Path, ...]:
        """The files of a sample: images and grasps."""
        path = self.paths[index]
        return *image_files(path, self.channels, self.depth).values(), path

    def __getitem__(self, index: int) -> GraspSample:
        path = self.paths[index]
        files = image_files(path, self.channels, self.depth)
        rgb = read_rgb(files["rgb"]) if "rgb" in files else None
        depth = read_depth(files["depth"]) if "depth" in files else None
        image = join_channels(rgb, depth, path)
        return make_grasp_sample(
            image, read_grasps(path), id=_stem(path), object=path.parent.name, source=path
        )


def open_jacquard(
    config: DataConfig,
    seed: int,
    channels: Channels = "depth",
    by: SplitBy = "object",
    depth: DepthKind = "perfect",
) -> Splits:
    """Jacquard, split 80/10/10 by object or by image.

    Args:
        config: where the data is.
        seed: not used: the split is the same in every run.
        channels: what the network receives.
        by: no object in two splits, or images at random.
        depth: which of the two depth images is read.

    Raises:
        UserError: files are missing.
    """
    root = find_root(config, GET)
    paths = tuple(sorted(root.rglob(f"*{GRASPS}")))
    if not paths:
        raise UserError(f"{root}: holds no OBJECT/*{GRASPS}; {GET}")
    for path in paths:
        for image in image_files(path, channels, depth).values():
            if not image.is_file():
                raise UserError(f"{image}: no such file, though {path.name} is there; {GET}")
    return split_reader("jacquard", JacquardReader(paths, channels, depth), channels, by)


def image_files(path: Path, channels: Channels, depth: DepthKind) -> dict[str, Path]:
    """The image files of a grasp file, by "rgb" and "depth"; only those that `channels` needs."""
    endings = {"rgb": "_RGB.png", "depth": f"_{depth}_depth.tiff"}
    used = {"rgb": ("rgb",), "depth": ("depth",), "rgbd": ("rgb", "depth")}[channels]
    return {kind: path.with_name(_stem(path) + endings[kind]) for kind in used}


def read_grasps(path: Path) -> np.ndarray:
    """Grasps N×5 of a `*_grasps.txt`.

    Raises:
        UserError: the file is missing or damaged.
    """
    grasps = read_rows(path, 5, separator=";")
    grasps[:, ANGLE] = -np.radians(grasps[:, ANGLE])
    return grasps


def _stem(path: Path) -> str:
    return path.name.removesuffix(GRASPS)
