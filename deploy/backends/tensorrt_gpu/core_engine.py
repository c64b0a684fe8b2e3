"""An engine of a network's core, for a DLA alone: the CPU normalizes images before it and decides labels after it."""

from pathlib import Path
from typing import Any

import numpy as np

from deploy.backends.core import completed, normalized
from deploy.backends.gpu_options import GpuOptions
from deploy.backends.tensorrt_gpu.cuda_interface import Cuda
from deploy.backends.tensorrt_gpu.device_arrays import DeviceArray
from deploy.backends.tensorrt_gpu.measuring import LayerTime
from deploy.backends.tensorrt_gpu.trt_engine import OUTPUTS, TrtEngine
from deploy.bundle.engine_files import Sidecar
from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError


class CoreEngine(TrtEngine):
    """Takes and returns what an engine of the whole network does, except on the GPU. Times are those of the core."""

    def __init__(
        self,
        engine: Path,
        plan: bytes,
        sidecar: Sidecar,
        cuda: Cuda,
        library: Any,
        options: GpuOptions,
        spec: InputSpec,
    ) -> None:
        super().__init__(engine, plan, sidecar, cuda, library, options)
        self._spec, self._keep_logits = spec, options.logits

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """See `deploy.backends.engine.Engine.run`."""
        logits = self._run(self._normalized(batch), {"logits": OUTPUTS["logits"]})["logits"]
        outputs = completed(logits, self._spec)
        return outputs if self._keep_logits else {"labels": outputs["labels"]}

    def all_outputs(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """See `TrtEngine.all_outputs`."""
        return super().all_outputs(self._normalized(batch))

    def run_on_device(self, batch: Any) -> dict[str, DeviceArray]:
        """Refuse: `UserError`."""
        raise UserError(
            f"{self.name}: is for a DLA alone, and the CPU decides its labels; give run() a numpy array"
        )

    def time(self, batch: np.ndarray, runs: int, *, copies: bool = True) -> np.ndarray:
        """See `TrtEngine.time`."""
        return super().time(self._normalized(batch), runs, copies=copies)

    def throughput(
        self, batch: np.ndarray, runs: int, *, streams: int = 2, ahead: int = 2, copies: bool = True
    ) -> float:
        """See `TrtEngine.throughput`."""
        images = self._normalized(batch)
        return super().throughput(images, runs, streams=streams, ahead=ahead, copies=copies)

    def profile(self, batch: np.ndarray, runs: int = 20) -> list[LayerTime]:
        """See `TrtEngine.profile`."""
        return super().profile(self._normalized(batch), runs)

    def _normalized(self, batch: np.ndarray) -> np.ndarray:
        return normalized(batch, self._spec).astype(self._tensors[0].dtype)
