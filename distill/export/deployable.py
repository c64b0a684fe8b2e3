"""The network in its deployed form, which is exported and evaluated: raw pixels in, labels and logits out."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from deploy.bundle.manifest import InputSpec
from distill.export.enlarging import enlarged
from distill.tasks.segmentation import argmax_head
from distill.tasks.task import Head


class Deployable(nn.Module):
    """Normalization, network, upsampling and the head of the task as one graph, for a fixed input size.

    Args:
        network: returns `teacher.pspnet.Output`.
        spec: input of the graph.
        head: turns scores into `labels` and `logits`; default: argmax over classes.
        dtype: the network computes in it, under autocast unless it is float32. Validation during training may use
            another dtype; exports are evaluated in float32.
    """

    def __init__(
        self,
        network: nn.Module,
        spec: InputSpec,
        head: Head = argmax_head,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.network = network
        self.spec = spec
        self.head = head
        self.dtype = dtype
        # Repeated for one line of the image, so that normalization runs along contiguous memory: with one number per
        # channel, an INT8 graph spent a tenth of its time here.
        line = (spec.width, 1) if spec.layout == "NHWC" else (1,)
        shape = (spec.width, len(spec.mean)) if spec.layout == "NHWC" else (len(spec.mean), 1, 1)

        def buffer(channels: Tensor) -> nn.Buffer:
            return nn.Buffer(channels.repeat(line).view(shape))

        self.mean, self.scale = buffer(torch.tensor(spec.mean)), buffer(1.0 / torch.tensor(spec.std))
        bounds = spec.scale.bounds
        self.low, self.high = (None if bound is None else buffer(torch.tensor(bound)) for bound in bounds)
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Predict a batch.

        Args:
            image: uint8 N×H×W×C or float32 N×C×H×W in raw units, as in `spec`.

        Returns:
            `labels` and `logits` of the head.
        """
        # cast first: TensorRT supports a uint8 input only if it is cast at once
        pixels = self.spec.scale.scaled(image.float(), (self.low, self.high), torch)
        image = (pixels - self.mean) * self.scale
        if self.spec.layout == "NHWC":
            image = image.permute(0, 3, 1, 2)
        logits = self._logits(image).float()
        return self.head(logits, partial(enlarged, size=(self.spec.height, self.spec.width)))

    def _logits(self, image: Tensor) -> Tensor:
        if self.dtype == torch.float32:
            return self.network(image).logits
        with torch.autocast(image.device.type, self.dtype):
            return self.network(image).logits


class TorchEngine:
    """A `deploy` engine that runs a `Deployable` in torch, so training and device share all code around the engine."""

    name = "torch"
    file = None

    def __init__(self, deployable: Deployable, device: torch.device | str = "cpu") -> None:
        self._deployable = deployable.to(device)
        self._device = torch.device(device)

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Return `labels` and `logits` of a batch in the layout of the input spec."""
        image = torch.from_numpy(np.ascontiguousarray(batch)).to(self._device)
        with evaluating(self._deployable):
            labels, logits = self._deployable(image)
        return {"labels": labels.cpu().numpy(), "logits": logits.cpu().numpy()}


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Within this context, `module` is in evaluation mode and has no gradients; then its mode is restored."""
    was_training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        module.train(was_training)
