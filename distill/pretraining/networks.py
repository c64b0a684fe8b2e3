"""The two networks of a pre-training, as feature maps by name."""

import timm
import torch
from torch import Tensor, nn

from deploy.errors import UserError
from distill.losses.distillation_loss import DistillationTerms
from student.zoo import build_network, has_option
from teacher.backbone import DEFAULT_STRIDE, build_backbone
from teacher.imagenet import remedy, why_missing
from teacher.own_stride import keeps_its_stride
from teacher.pspnet import Output

STRIDE = 32
"""Output stride of backbones that could be dilated: that of ImageNet classifiers, and the cheapest."""
PROBE = 64
"""Side of the image that tells what a backbone returns."""
MAPS = 4
"""Names of maps: layer4 is the last, layer1 the fourth from the end."""


class FeatureMaps(nn.Module):
    """A backbone whose maps have names: N×C×H×W → `Output` with the features `layer4`, `layer3` …

    It has no classes; the first channel of the last map takes the place of logits.

    Args:
        backbone: returns a list of maps, the deepest last.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Output:
        maps = self.backbone(x)[-MAPS:]
        names = range(MAPS - len(maps) + 1, MAPS + 1)
        features = {f"layer{number}": each for number, each in zip(names, maps, strict=True)}
        return Output(maps[-1][:, :1], None, features)


def student_maps(arch: str, channels: int) -> FeatureMaps:
    """The new backbone of a student.

    Args:
        arch: name of the student.
        channels: of the images.

    Raises:
        UserError: there is no such student, or it has no backbone that a file of weights could initialize.
    """
    dilates = arch.startswith(("pspnet/", "deeplabv3plus/")) and not keeps_its_stride(arch.partition("/")[2])
    stride = {"output_stride": STRIDE} if dilates and has_option(arch, "output_stride") else {}
    network = build_network(arch, channels, 2, aux=False, **stride)
    backbone = dict(network.named_children()).get("backbone")
    if backbone is None:
        raise UserError(
            f"--student {arch}: has no backbone to train alone; choose edge-*, pspnet/* or deeplabv3plus/*"
        )
    if not _gives_a_list(backbone, channels):
        raise UserError(
            f"--student {arch}: its backbone gives no list of maps; choose edge-*, pspnet/* or deeplabv3plus/*"
        )
    return FeatureMaps(backbone)


@torch.no_grad()
def _gives_a_list(backbone: nn.Module, channels: int) -> bool:
    """Whether it returns maps as `FeatureMaps` takes them; torchvision's backbones return a mapping."""
    maps = backbone.eval()(torch.zeros(1, channels, PROBE, PROBE))
    backbone.train()
    return isinstance(maps, list | tuple)


def teacher_maps(name: str, channels: int, terms: DistillationTerms) -> FeatureMaps:
    """A timm network with its ImageNet weights, as far as the losses need its maps.

    Args:
        name: timm's name.
        channels: of the images; the first convolution is adapted to them.
        terms: the losses, on features.

    Raises:
        UserError: timm has no such network, or its weights cannot be had; or a loss compares outputs, or a map that
            backbones do not have.
    """
    count = MAPS + 1 - min(_number(feature) for feature in _features(terms))
    if timm.is_model(name) and (reason := why_missing(name)):
        raise UserError(f"--teacher {name}: its ImageNet weights cannot be had: {reason}; {remedy(name)}")
    own = keeps_its_stride(name)
    maps = range(-max(2, count), 0)
    backbone = build_backbone(
        name, channels, DEFAULT_STRIDE if own else STRIDE, pretrained=True, maps=tuple(maps)
    )
    return FeatureMaps(backbone)


def _features(terms: DistillationTerms) -> tuple[str, ...]:
    for term in terms.main:
        if term.feature is None:
            raise UserError(
                f"--loss {term.loss}: compares outputs, of which there are none yet; name a map, such as"
                " cosine(layer4)"
            )
    return terms.features


def _number(feature: str) -> int:
    names = [f"layer{number}" for number in range(1, MAPS + 1)]
    if feature not in names:
        raise UserError(f"--loss: backbones have no map {feature!r}; they have {', '.join(names)}")
    return names.index(feature) + 1


def pixel_normalization(name: str) -> tuple[Tensor, Tensor]:
    """Mean and deviation by which a timm network's images of R, G and B in 0..255 are normalized: 3×1×1 each."""
    config = timm.get_pretrained_cfg(name)
    assert config is not None
    mean, std = (255 * torch.tensor(values).view(-1, 1, 1) for values in (config.mean, config.std))
    return mean, std
