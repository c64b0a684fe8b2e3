"""The network as a device sees it: raw pixels in, labels and logits out. What is exported and what is evaluated."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from deploy.bundle.manifest import InputSpec
from deploy.tasks.grasp.geometry import GOOD
from distill.data.splits import Splits
from distill.losses.supervised.grasp import QualityKind, quality_of
from teacher.pooling import upsampling_matrix


class Deployable(nn.Module):
    """Normalization, network, resize back and arg-max as one graph, for a fixed input size.

    `forward` takes uint8 N×H×W×C or float32 N×C×H×W in raw units, as `spec` says, and returns labels uint8 N×H×W and
    logits float32 N×K×h×w at the network's stride. The network computes in `dtype`, under autocast if that is not
    float32: so for the scores during training; exports are judged in float32.
    """

    def __init__(self, network: nn.Module, spec: InputSpec, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.network = network
        self.spec = spec
        self.dtype = dtype
        # One line of the image, so that they are subtracted and multiplied along contiguous memory: with three numbers
        # an INT8 graph spent a tenth of its time here.
        line = (spec.width, 1) if spec.layout == "NHWC" else (1,)
        shape = (spec.width, len(spec.mean)) if spec.layout == "NHWC" else (len(spec.mean), 1, 1)
        self.mean = nn.Buffer(torch.tensor(spec.mean).repeat(line).view(shape))
        self.scale = nn.Buffer((1.0 / torch.tensor(spec.std)).repeat(line).view(shape))
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        # The cast comes first: TensorRT takes uint8 as an input, and then nothing but a cast of it.
        image = (image.float() - self.mean) * self.scale
        if self.spec.layout == "NHWC":
            image = image.permute(0, 3, 1, 2)
        logits = self._logits(image).float()
        return self._finished(self._enlarged(logits), logits)

    def _enlarged(self, logits: Tensor) -> Tensor:
        """The logits at the size of the image; as they are where the network gives them so."""
        if logits.shape[2:] == (self.spec.height, self.spec.width):
            return logits
        rows = upsampling_matrix(self.spec.height, logits.shape[2]).to(logits)
        columns = upsampling_matrix(self.spec.width, logits.shape[3]).to(logits)
        return rows @ (logits @ columns.T)

    def _finished(self, full: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Both outputs, from the scores N×K×H×W at the size of the input, and as the network gives them."""
        return full.argmax(1).to(torch.uint8), logits

    def _logits(self, image: Tensor) -> Tensor:
        if self.dtype == torch.float32:
            return self.network(image).logits
        with torch.autocast(image.device.type, self.dtype):
            return self.network(image).logits


class GraspDeployable(Deployable):
    """The same for grasps: labels are 1 where a grasp is good, and "logits" the four maps at the size of the input.

    Maps are float32 N×4×H×W: quality in 0..1, cos 2θ, sin 2θ, and the width in 0..1 (see `deploy.tasks.grasp`).
    """

    quality: QualityKind = "clamp"

    def _finished(self, full: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        quality, angle, width = quality_of(full[:, :1], self.quality), full[:, 1:3], full[:, 3:].clamp(0, 1)
        return (quality[:, 0] >= GOOD).to(torch.uint8), torch.cat([quality, angle, width], dim=1)


def deployable(
    network: nn.Module, spec: InputSpec, splits: Splits | None = None, dtype: torch.dtype = torch.float32
) -> Deployable:
    """The form in which a network trained on this data is deployed; of no data, to segment."""
    if splits is None or splits.task != "grasp":
        return Deployable(network, spec, dtype)
    grasping = GraspDeployable(network, spec, dtype)
    grasping.quality = splits.quality
    return grasping


class TorchEngine:
    """A `deploy` engine that runs a `Deployable` in torch: training and device share everything around it."""

    name = "torch"
    file = None

    def __init__(self, deployable: Deployable, device: torch.device | str = "cpu") -> None:
        self._deployable = deployable.to(device)
        self._device = torch.device(device)

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """`{"labels", "logits"}` of a batch in the layout of the input spec."""
        image = torch.from_numpy(np.ascontiguousarray(batch)).to(self._device)
        with evaluating(self._deployable):
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
