"""Networks of other packages, built untrained for comparison: what a user would otherwise choose.

Their packages are optional and none is needed elsewhere; ultralytics (AGPL-3.0) is installed by hand only.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn

from deploy.errors import UserError
from teacher.pspnet import Output


@dataclass(frozen=True)
class Peer:
    """A network of another package."""

    module: str
    """Name of the package to import."""
    requirement: str
    """What to install."""
    build: Callable[[int], nn.Module]
    """Builds the network for a number of classes."""

    @property
    def missing(self) -> str:
        """The command that installs the package; empty if it is installed."""
        return "" if find_spec(self.module) else f"pip install {self.requirement}"


class PeerNetwork(nn.Module):
    """A network of another package whose forward returns `teacher.pspnet.Output`, for images N×3×H×W.

    Args:
        network: the network, as its package builds it.
        logits: runs it on normalized images; returns its logits, and those of its auxiliary head or None.
    """

    def __init__(
        self, network: nn.Module, logits: Callable[[nn.Module, Tensor], tuple[Tensor, Tensor | None]]
    ) -> None:
        super().__init__()
        self.network = network
        self.logits = logits

    def forward(self, x: Tensor) -> Output:
        """Logits at the stride of the network's decoder; upsampling to the image follows for all networks alike."""
        return Output(*self.logits(self.network, x))


def build_peer(name: str, classes: int) -> PeerNetwork:
    """Build the peer called `name` with new weights.

    Raises:
        UserError: no peer has this name, or its package is not installed.
    """
    if name not in PEERS:
        raise UserError(f"unknown peer {name!r}; known: {', '.join(PEERS)}")
    peer = PEERS[name]
    if peer.missing:
        raise UserError(f"{name} needs a package that is not installed: {peer.missing}")
    network = peer.build(classes)
    assert isinstance(network, PeerNetwork)
    return network


def missing_peers(names: Mapping[str, Peer] | None = None) -> dict[str, str]:
    """The peers that cannot be built here, each with the command that installs its package."""
    peers = PEERS if names is None else names
    return {name: peer.missing for name, peer in peers.items() if peer.missing}


def _lraspp(classes: int) -> PeerNetwork:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large  # optional dependency

    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes)
    return PeerNetwork(network, _lraspp_logits)


def _lraspp_logits(network: Any, x: Tensor) -> tuple[Tensor, None]:
    """Its logits at stride 8."""
    return network.classifier(network.backbone(x)), None


def _smp(architecture: str, encoder: str) -> Callable[[int], nn.Module]:
    def build(classes: int) -> PeerNetwork:
        import segmentation_models_pytorch as smp  # optional dependency

        network = getattr(smp, architecture)(encoder, encoder_weights=None, classes=classes)
        return PeerNetwork(network, _smp_logits)

    return build


def _smp_logits(network: Any, x: Tensor) -> tuple[Tensor, None]:
    """Its logits at the decoder's stride: 4 in DeepLabV3+, 1 in U-Net."""
    classifier, *_ = network.segmentation_head
    return classifier(network.decoder(network.encoder(x))), None


def _segformer(classes: int) -> PeerNetwork:
    import transformers  # optional dependency # pyright: ignore[reportMissingImports]

    # its defaults are B0; some versions hide their arguments from type checkers
    config = transformers.SegformerConfig(num_labels=classes)  # pyright: ignore[reportCallIssue]
    return PeerNetwork(transformers.SegformerForSemanticSegmentation(config), _segformer_logits)


def _segformer_logits(network: Any, x: Tensor) -> tuple[Tensor, None]:
    """Its logits at stride 4."""
    return network(x).logits, None


def _yolo_sem(size: str) -> Callable[[int], nn.Module]:
    def build(classes: int) -> PeerNetwork:
        os.environ.setdefault("YOLO_OFFLINE", "true")  # read at import: no look-ups, no reports
        from ultralytics.nn import tasks  # optional dependency # pyright: ignore[reportMissingImports]

        network = tasks.SemanticSegmentationModel(f"yolo26{size}-sem.yaml", ch=3, nc=classes, verbose=False)
        return PeerNetwork(network, _yolo_logits)

    return build


def _yolo_logits(network: Any, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Its logits at stride 8; in training also those of its auxiliary head at stride 16."""
    found = network(x)
    return found if isinstance(found, tuple) else (found, None)


PEERS: Mapping[str, Peer] = {
    "torchvision LR-ASPP-MobileNetV3-L": Peer("torchvision", "torchvision", _lraspp),
    "SMP DeepLabV3+-MobileNetV2": Peer(
        "segmentation_models_pytorch", "segmentation-models-pytorch", _smp("DeepLabV3Plus", "mobilenet_v2")
    ),
    "SMP U-Net-ResNet18": Peer(
        "segmentation_models_pytorch", "segmentation-models-pytorch", _smp("Unet", "resnet18")
    ),
    "transformers SegFormer-B0": Peer("transformers", "transformers", _segformer),
    "ultralytics YOLO26n-sem": Peer("ultralytics", "ultralytics", _yolo_sem("n")),
    "ultralytics YOLO26s-sem": Peer("ultralytics", "ultralytics", _yolo_sem("s")),
}
