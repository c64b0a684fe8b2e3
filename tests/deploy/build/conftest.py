"""What tests of builds share: a bundle with labeled data, on a machine without a GPU."""

from pathlib import Path

import pytest

from deploy.backends.tensorrt_gpu import cuda, signs


@pytest.fixture
def bundle(tmp_path) -> Path:
    from tests.deploy.labeled_bundle import make_labeled_bundle  # needs onnx

    return make_labeled_bundle(tmp_path / "tiny.bundle")


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(cuda, "probe", lambda device=0: None)
    monkeypatch.setattr(cuda, "why_not", lambda device=0: "no driver")
    monkeypatch.setattr(signs, "look", signs.Signs)
