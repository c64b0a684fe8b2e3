"""A tiny bundle of two classes that is better with another threshold, with labeled data beside it."""

from pathlib import Path

import numpy as np

from deploy.evaluation.labeled_data import DataInfo, write_info, write_labeled
from tests.deploy.tiny import make_bundle

IMAGES = 4


def scene(seed: int, shift: float = 3.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image float32 32×48×2, label and valid: land (1) where VV is above −12 + `shift`, the bundle says above −12."""
    random = np.random.default_rng(seed)
    level = random.normal(-12, 4, (4, 6)).repeat(8, axis=0).repeat(8, axis=1)
    image = np.stack([level, random.normal(-19, 5, (32, 48))], axis=2).astype(np.float32)
    label = (level + random.normal(0, 1, (32, 48)) > -12 + shift).astype(np.uint8)
    valid = np.ones((32, 48), bool)
    valid[:3] = False
    return image, label, valid


def make_two_class_bundle(folder: Path, shift: float = 3.0) -> Path:
    """The bundle, and `data/val` and `data/test` in its parent folder."""
    make_bundle(folder, "sar")
    for split, first in (("val", 20), ("test", 30)):
        write_labeled(
            folder.parent / "data" / split,
            [(f"{index}", *scene(first + index, shift)) for index in range(IMAGES)],
        )
    write_info(folder.parent / "data", DataInfo("made up", "test", IMAGES))
    return folder
