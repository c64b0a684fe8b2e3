"""Models for streams whose results and speed are known."""

import threading
import time

import numpy as np

from deploy.stream.pipeline import NAME
from deploy.tasks.segmentation.model import SegmentationModel
from tests.deploy.tiny import CLASSES, SPECS


class LevelEngine:
    """Labels each image with the value of its first byte, after `seconds`; fails at the value `fails_at`."""

    def __init__(self, seconds: float = 0.0, fails_at: int | None = None) -> None:
        self.name, self.file = "level fp32", None
        self.seconds, self.fails_at = seconds, fails_at
        self.batches: list[int] = []

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        self.batches.append(len(batch))
        time.sleep(self.seconds)
        levels = batch[:, 0, 0, 0]
        if self.fails_at in levels:
            raise RuntimeError("the engine broke\nand says so at length")
        labels = np.broadcast_to(levels[:, None, None], batch.shape[:3]).astype(np.uint8)
        return {"labels": labels, "logits": np.zeros((len(batch), 3, 4, 6), np.float32)}


def level_model(seconds: float = 0.0, fails_at: int | None = None) -> SegmentationModel:
    """A model whose label, everywhere, is the level of a constant image."""
    return SegmentationModel(SPECS["rgb"], CLASSES["rgb"], LevelEngine(seconds, fails_at))


def level(value: int, size: tuple[int, int] = (32, 48)) -> np.ndarray:
    """An image of one value."""
    return np.full((*size, 3), value, np.uint8)


def threads() -> list[str]:
    """The threads of streams that are alive."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(NAME)]
