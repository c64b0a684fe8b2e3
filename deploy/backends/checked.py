"""An engine whose outputs are checked: whatever a network declares, what it returns is compared with the manifest."""

from pathlib import Path
from typing import Any

import numpy as np

from deploy.backends.engine import Engine
from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError


class CheckedEngine:
    """Runs another engine, and refuses outputs that are not what a model of the bundle returns; takes microseconds.

    Args:
        engine: the engine.
        spec: the bundle's input.
        classes: number of classes; labels are below it.
        maps: number of maps in the logits.
    """

    def __init__(self, engine: Engine, spec: InputSpec, classes: int, maps: int) -> None:
        self._engine, self._size = engine, (spec.height, spec.width)
        self._classes, self._maps = classes, maps

    @property
    def name(self) -> str:
        """See `deploy.backends.engine.Engine.name`."""
        return self._engine.name

    @property
    def file(self) -> Path | None:
        """See `deploy.backends.engine.Engine.file`."""
        return self._engine.file

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """See `deploy.backends.engine.Engine.run`.

        Raises:
            UserError: an output has another type or shape than a model of the bundle returns, or a label is no class.
        """
        outputs = self._engine.run(batch)
        labels, logits = outputs["labels"], outputs.get("logits")
        if labels.dtype != np.uint8 or labels.shape != (len(batch), *self._size):
            raise self._refusal("labels", labels, f"uint8 {(len(batch), *self._size)}")
        if logits is not None:
            self._check_logits(logits, len(batch))
        if labels.max() >= self._classes:
            raise UserError(
                f"{self._what}: returned label {labels.max()}, the bundle has {self._classes} classes (0.."
                f"{self._classes - 1}); export it again"
            )
        return outputs

    def run_on_device(self, batch: Any) -> dict[str, Any]:
        """See `deploy.backends.tensorrt_gpu.trt_engine.TrtEngine.run_on_device`; the outputs are not checked.

        Raises:
            UserError: the engine runs on the CPU.
        """
        run = getattr(self._engine, "run_on_device", None)
        if run is None:
            raise UserError(f"{self.name}: runs on the CPU; give run() a numpy array")
        return run(batch)

    def _check_logits(self, logits: np.ndarray, images: int) -> None:
        if logits.dtype != np.float32 or logits.ndim != 4 or logits.shape[:2] != (images, self._maps):
            raise self._refusal("logits", logits, f"float32 {(images, self._maps, 'h', 'w')}")
        if not logits.size:
            raise self._refusal("logits", logits, "at least one value per map")

    @property
    def _what(self) -> str:
        return str(self.file or self.name)

    def _refusal(self, name: str, found: np.ndarray, wanted: str) -> UserError:
        return UserError(
            f"{self._what}: returned {name} {found.dtype} {found.shape}, the manifest tells {wanted}; export it again"
        )
