"""Small images, labels and folders in the layouts of data sets."""

from pathlib import Path

import numpy as np
from PIL import Image

from deploy.files.images import write_png
from distill.config import DataConfig
from distill.data.datasets.voc import voc_color
from distill.tasks.registry import open_splits

HEIGHT, WIDTH = 6, 8


def photo(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)


def ids(*values: int) -> np.ndarray:
    """A label with these values in its rows, in turn."""
    return np.array([values[row % len(values)] for row in range(HEIGHT)], np.uint8)[:, None].repeat(WIDTH, 1)


def open_at(name: str, root: Path, **fields):
    return open_splits(DataConfig(name, root=root, **fields))  # pyright: ignore[reportArgumentType]


def write_jpg(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, quality=95)


def write_palette(path: Path, indices: np.ndarray) -> None:
    """A palette PNG as VOC has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(indices, "L").convert("P")
    image.putdata(indices.flatten().tolist())
    image.putpalette([part for index in range(256) for part in voc_color(index)])
    image.save(path)


def make_folder(root: Path, masks: dict[str, np.ndarray], image=photo, suffix="png") -> Path:
    for number, (stem, mask) in enumerate(masks.items()):
        (root / "images").mkdir(parents=True, exist_ok=True)
        if suffix == "npy":
            np.save(root / "images" / f"{stem}.npy", image(number))
        else:
            write_png(root / "images" / f"{stem}.{suffix}", image(number))
        write_png(root / "masks" / f"{stem}.png", mask)
    return root


def laid_out(root: Path, *masks: np.ndarray, test: bool = True, **arguments) -> Path:
    for split in ("train", "val", "test")[: 3 if test else 2]:
        make_folder(
            root / split, {f"{split}{number}": mask for number, mask in enumerate(masks)}, **arguments
        )
    return root
