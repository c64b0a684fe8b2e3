"""A student that starts from its teacher's weights, where it is a shallower network of the teacher's family.

DistilBERT (Sanh et al., arXiv:1910.01108) begins with every second layer of its teacher. In a ResNet the blocks of a
stage all have one shape but the first, so a ResNet50 can take its blocks from a ResNet101, a ResNet18 from a ResNet34,
in the teacher's order and evenly spread over the stage. It costs nothing: no image is shown to the teacher.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

BLOCK = re.compile(r"(backbone\..*?(?:layer\d+|blocks\.\d+))\.(\d+)\.(.+)")
"""Stage, number of the block and the rest of a tensor's name, in ResNets and the MobileNets of timm."""


def init_from_teacher(student: nn.Module, teacher: nn.Module) -> float:
    """Copy into `student` the weights and statistics that `teacher` has for it.

    Block i of a student's stage of n blocks takes those of block round(i·(m-1)/(n-1)) of the teacher's m. All of the
    student's backbone has to be found in the teacher, in the same shapes: half a backbone of one network and half of
    another fit worse than one that starts afresh. Heads are then taken tensor by tensor where the shapes agree.

    Returns:
        The share of the student's parameters that were copied; 0, and nothing changed, where the backbones differ.
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
    """The teacher's name for each tensor of the student."""
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
