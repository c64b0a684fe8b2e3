"""The PSPNets of semseg and of MMSegmentation after their published structure, with their names of tensors.

Only what fixes the result is here: layers, names, dilations and corners. Written for the tests, independently of
`teacher.pspnet`: semseg's `model/pspnet.py` and `model/resnet.py`, MMSegmentation's `psp_head.py`, `fcn_head.py` and
`resnet.py` describe the same networks.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BLOCKS = (3, 4, 6, 3)
BINS = (1, 2, 3, 6)


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 with the stride in the second."""

    def __init__(self, inside: int, width: int, stride: int, dilation: int, shortcut: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inside, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))
            if shortcut
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x)))


def stage(inside: int, width: int, blocks: int, stride: int, dilation: int, first: int) -> nn.Sequential:
    head = Bottleneck(inside, width, stride, first, True)
    return nn.Sequential(head, *(Bottleneck(4 * width, width, 1, dilation, False) for _ in range(blocks - 1)))


def stages(inside: int, contract: bool) -> list[nn.Sequential]:
    """Output stride 8; the first block of a dilated stage has half of its dilation if `contract`."""
    widths, strides, dilations = (64, 128, 256, 512), (1, 2, 1, 1), (1, 1, 2, 4)
    made = []
    for width, blocks, stride, dilation in zip(widths, BLOCKS, strides, dilations, strict=True):
        first = dilation // 2 if contract and dilation > 1 else dilation
        made.append(stage(inside, width, blocks, stride, dilation, first))
        inside = 4 * width
    return made


def deep_stem(width: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inside, outside, stride in ((3, width, 2), (width, width, 1), (width, 2 * width, 1)):
        layers += [nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
    return layers


class PPM(nn.Module):
    """semseg's pyramid."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(bins),
                nn.Conv2d(2048, 512, 1, bias=False),
                nn.BatchNorm2d(512),
                nn.ReLU(),
            )
            for bins in BINS
        )

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        maps = [F.interpolate(one(x), size, mode="bilinear", align_corners=True) for one in self.features]
        return torch.cat([x, *maps], 1)


class Semseg(nn.Module):
    """semseg's PSPNet: deep stem of 64, 64 and 128 channels, first blocks dilated, aligned corners."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layer0 = nn.Sequential(*deep_stem(64), nn.MaxPool2d(3, 2, 1))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages(128, contract=False)
        self.ppm = PPM()
        self.cls = nn.Sequential(
            nn.Conv2d(4096, 512, 3, padding=1, bias=False),
            nn.BatchNorm2d(512),
            nn.ReLU(),
            nn.Dropout2d(0.1),
            nn.Conv2d(512, classes, 1),
        )
        self.aux = nn.Sequential(
            nn.Conv2d(1024, 256, 3, padding=1, bias=False),
            nn.BatchNorm2d(256),
            nn.ReLU(),
            nn.Dropout2d(0.1),
            nn.Conv2d(256, classes, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.layer0, self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        return self.cls(self.ppm(x))


class ConvModule(nn.Module):
    """mmcv's convolution, batch norm and ReLU."""

    def __init__(self, inside: int, outside: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outside)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class PSPHead(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(bins), ConvModule(2048, 512, 1)) for bins in BINS
        )
        self.bottleneck = ConvModule(4096, 512, 3)
        self.conv_seg = nn.Conv2d(512, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        maps = [F.interpolate(one(x), size, mode="bilinear", align_corners=False) for one in self.psp_modules]
        return self.conv_seg(self.bottleneck(torch.cat([x, *maps], 1)))


class FCNHead(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(ConvModule(1024, 256, 3))
        self.conv_seg = nn.Conv2d(256, classes, 1)


class ResNet(nn.Module):
    """MMSegmentation's, V1c with a deep stem or V1."""

    def __init__(self, deep: bool) -> None:
        super().__init__()
        if deep:
            self.stem = nn.Sequential(*deep_stem(32))
        else:
            self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(64)
        self.deep = deep
        self.layer1, self.layer2, self.layer3, self.layer4 = stages(64, contract=True)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(x) if self.deep else F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class MMSeg(nn.Module):
    """MMSegmentation's `EncoderDecoder` of `pspnet_r50-d8`."""

    def __init__(self, classes: int, deep: bool) -> None:
        super().__init__()
        self.backbone = ResNet(deep)
        self.decode_head = PSPHead(classes)
        self.auxiliary_head = FCNHead(classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode_head(self.backbone(x))


def randomized(network: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights, and statistics of batch norms that hide no error."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network.eval()
