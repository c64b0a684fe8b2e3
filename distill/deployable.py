"""The network as a device sees it: raw pixels in, labels and logits out. What is exported and what is evaluated."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deploy.bundle import InputSpec


class Deployable(nn.Module):
    """Normalisation, network, resize back and arg-max as one graph, for a fixed input size.

    `forward` takes uint8 N×H×W×C or float32 N×C×H×W in raw units, as `spec` says, and returns labels uint8 N×H×W and
    logits float32 N×K×h×w at the network's stride.
    """

    def __init__(self, network: nn.Module, spec: InputSpec) -> None:
        super().__init__()
        self.network = network
        self.spec = spec
        self.mean = nn.Buffer(torch.tensor(spec.mean).view(-1, 1, 1))
        self.scale = nn.Buffer(1.0 / torch.tensor(spec.std).view(-1, 1, 1))
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        image = image.float()  # first of all: TensorRT takes uint8 as an input, and then nothing but a cast of it
        if self.spec.layout == "NHWC":
            image = image.permute(0, 3, 1, 2)
        logits = self.network((image - self.mean) * self.scale).logits.float()
        upsampled = F.interpolate(
            logits, (self.spec.height, self.spec.width), mode="bilinear", align_corners=False
        )
        return upsampled.argmax(1).to(torch.uint8), logits


class TorchEngine:
    """A `deploy` engine that runs a `Deployable` in torch: training and device share everything around it.

    `dtype` other than float32 computes under autocast, for the scores during training; exports are judged in float32.
    """

    name = "torch"

    def __init__(
        self, deployable: Deployable, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self._deployable = deployable.to(device)
        self._device = torch.device(device)
        self._dtype = dtype

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """`{"labels", "logits"}` of a batch in the layout of the input spec."""
        image = torch.from_numpy(np.ascontiguousarray(batch)).to(self._device)
        autocast = torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32)
        with evaluating(self._deployable), autocast:
            labels, logits = self._deployable(image)
        return {"labels": labels.cpu().numpy(), "logits": logits.cpu().numpy()}


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the training mode of before returns at the end."""
    was_training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        module.train(was_training)
