"""A tiny bundle with labeled data beside it, as a run writes them."""

from pathlib import Path

import numpy as np

from deploy.evaluation.labeled_data import DataInfo, write_image, write_info, write_labeled
from deploy.loading import load
from tests.deploy.tiny import make_bundle


def scene(seed: int) -> np.ndarray:
    """Patches that are clearly red, green or blue, with noise."""
    rng = np.random.default_rng(seed)
    patches = np.eye(3)[rng.integers(0, 3, (4, 6))].repeat(8, axis=0).repeat(8, axis=1)
    return (100 + 80 * patches + rng.normal(0, 10, (32, 48, 3))).clip(0, 255).astype(np.uint8)


def make_labeled_bundle(folder: Path) -> Path:
    """A bundle with data beside it, labeled by the fp32 model, with a few invalid pixels."""
    data = folder.parent / "data"
    make_bundle(folder)
    model = load(folder, "onnxruntime")
    for index in range(10):
        write_image(data / "calibration" / "images" / f"{index}", scene(index))
    for split, first in (("val", 20), ("test", 30)):
        images = [scene(first + index) for index in range(4)]
        valid = np.ones((32, 48), bool)
        valid[:3] = False
        samples = [(f"{i}", image, model(image).labels, valid) for i, image in enumerate(images)]
        write_labeled(data / split, samples)
    write_info(data, DataInfo("made up", "test", 4))
    return folder


def make_hard(data: Path, bundle: Path, split: str) -> None:
    """Add images to a split in which the classes nearly tie: a little noise around the means."""
    for path in [*(data / split / "masks").iterdir(), *(data / split / "images").iterdir()]:
        path.unlink()
    model, rng = load(bundle, "onnxruntime"), np.random.default_rng(0)
    images = [rng.integers((118, 108, 98), (123, 113, 103), (32, 48, 3), np.uint8) for _ in range(4)]
    everywhere = np.ones((32, 48), bool)
    write_labeled(
        data / split, [(f"{i}", image, model(image).labels, everywhere) for i, image in enumerate(images)]
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
