"""A network that exists only as an ONNX file, alone or in a bundle: it scores on the CPU and is never trained."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deploy.inference.tiling import predict_tiled
from teacher.external.exported import Exported
from teacher.fitting import resized
from teacher.pspnet import Output

UINT8_MAX = 255


class ExportedNetwork(nn.Module):
    """An exported network as one of this project.

    It keeps its size. Where that is fixed, whole images of the run, which have `whole` pixels, are resized to it, and
    crops of them by the same factors; what then has another size than the network is covered by overlapping windows.
    A network that tiles sees images at the run's own scale.

    Args:
        exported: the network.
        whole: height and width of the run's whole images.
        fill: of each channel, in the units that the network takes: what pads images smaller than a window.
    """

    def __init__(self, exported: Exported, whole: tuple[int, int], fill: Sequence[float]) -> None:
        super().__init__()
        self.exported, self.whole, self.fill = exported, whole, tuple(fill)
        self.in_channels = exported.in_channels
        # in the state: it tells the outputs of one network from those of another
        self.sha256 = nn.Buffer(torch.tensor(list(bytes.fromhex(exported.sha256)), dtype=torch.uint8))

    def forward(self, x: Tensor) -> Output:
        """Run the network.

        Args:
            x: floating images N×C×H×W in the units that the network takes; rounded where these are uint8.

        Returns:
            Logits N×K×h×w at the network's stride, without gradient.

        Raises:
            UserError: the runtime cannot run it on images of this size.
        """
        logits = self._logits(x.detach().float().cpu())
        return Output(logits.to(x.device), None)

    def _logits(self, images: Tensor) -> Tensor:
        size = self.exported.size
        if size is None:
            return self._scores(images)
        if not self.exported.tiles:
            sides = zip(images.shape[-2:], size, self.whole, strict=True)
            height, width = (max(1, round(side * own / whole)) for side, own, whole in sides)
            images = resized(images, (height, width))
        if tuple(images.shape[-2:]) == size:
            return self._scores(images)
        return torch.stack([self._by_windows(one, size) for one in images])

    def _by_windows(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """Scores K×h×w of an image C×H×W of another size than the network, at its stride."""
        cells: list[tuple[int, int]] = []

        def scores(windows: np.ndarray) -> np.ndarray:
            found = self._scores(torch.from_numpy(windows).permute(0, 3, 1, 2)).numpy()
            cells.append((found.shape[2], found.shape[3]))
            return found

        pixels = predict_tiled(scores, image.permute(1, 2, 0).numpy(), size, fill=self.fill)
        height, width = (
            max(1, round(side * count / own))
            for side, count, own in zip(image.shape[-2:], cells[0], size, strict=True)
        )
        return F.interpolate(torch.from_numpy(pixels)[None], (height, width), mode="area")[0]

    def _scores(self, images: Tensor) -> Tensor:
        exported = self.exported
        if exported.layout == "NHWC":
            images = images.permute(0, 2, 3, 1)
        array = images.contiguous().numpy()
        if exported.uint8:
            array = np.rint(array.clip(0, UINT8_MAX)).astype(np.uint8)
        parts = [array[i : i + 1] for i in range(len(array))] if exported.single else [array]
        return torch.cat([torch.from_numpy(np.array(exported.run(part), np.float32)) for part in parts])
