"""Initialize a student with its teacher's weights, if it is a shallower network of the teacher's family.

DistilBERT (Sanh et al., arXiv:1910.01108) is initialized with every second layer of its teacher. In a ResNet, all
blocks of a stage except the first have the same shape, so a ResNet50 can take its blocks from a ResNet101, and a
ResNet18 from a ResNet34, in the teacher's order and evenly spread over the stage. It costs nothing: the teacher is not
run.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

BLOCK = re.compile(r"(backbone\..*?(?:layer\d+|blocks\.\d+))\.(\d+)\.(.+)")
"""Stage, block number and remainder of a tensor's name, in timm's ResNets and MobileNets."""


def init_from_teacher(student: nn.Module, teacher: nn.Module) -> float:
    """Copy the matching weights and statistics of `teacher` into `student`.

    In a stage, block i of the student's n blocks is copied from block round(i·(m-1)/(n-1)) of the teacher's m. The
    teacher must have all tensors of the student's backbone in the same shapes: a backbone that is only partly copied
    trains worse than a new one. Tensors of the heads are copied one by one where the shapes agree.

    Returns:
        The fraction of the student's parameters that were copied; 0 if the backbones do not match and nothing changed.
    """
    own, theirs = student.state_dict(), teacher.state_dict()
    sources = _sources(own, theirs)
    fitting = {
        name: source
        for name, source in sources.items()
        if source in theirs and theirs[source].shape == own[name].shape
    }
    backbone = {name for name in own if name.startswith("backbone.")}
    if not backbone or not backbone <= fitting.keys():
        return 0.0
    for name, source in fitting.items():
        own[name].copy_(theirs[source])
    parameters = dict(student.named_parameters())
    copied = sum(parameter.numel() for name, parameter in parameters.items() if name in fitting)
    return copied / sum(parameter.numel() for parameter in parameters.values())


def _sources(own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> dict[str, str]:
    """The name of the teacher's tensor for each tensor of the student."""
    depth, theirs_depth = _depths(own), _depths(theirs)
    sources = {}
    for name in own:
        if (match := BLOCK.fullmatch(name)) is None:
            sources[name] = name
            continue
        stage, block, rest = match.groups()
        spread = (theirs_depth.get(stage, 1) - 1) / max(1, depth[stage] - 1)
        sources[name] = f"{stage}.{round(int(block) * spread)}.{rest}"
    return sources


def _depths(names: Iterable[str]) -> dict[str, int]:
    """The number of blocks of each stage."""
    blocks: dict[str, int] = defaultdict(int)
    for name in names:
        if match := BLOCK.fullmatch(name):
            blocks[match[1]] = max(blocks[match[1]], int(match[2]) + 1)
    return blocks
