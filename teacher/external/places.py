"""Where published weights are found, in one line for people."""

from collections.abc import Callable, Mapping

from teacher.external.hf_files import hf_place
from teacher.external.smp_networks import smp_place
from teacher.external.torchvision_networks import torchvision_place
from teacher.imagenet import where_found

KINDS: Mapping[str, tuple[str, Callable[[str], str | None]]] = {
    "hf": ("published weights", hf_place),
    "torchvision": ("torchvision's weights of the whole network", torchvision_place),
    "smp": ("ImageNet weights of the encoder", smp_place),
}
"""What `pretrained` loads, and a function that tells where it lies, by family."""


def pretrained_line(arch: str) -> str:
    """What `pretrained` loads into a network, and where it was found: a package, a cache, a folder, or the hub.

    Raises:
        UserError: the family has no such network.
    """
    family, _, name = arch.partition("/")
    what, place = KINDS.get(family, ("ImageNet weights", where_found))
    return f"{what} ({place(name) or 'downloaded'})"
