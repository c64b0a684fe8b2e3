"""`deploy.load` while another program replaces the bundle: the files of one bundle, never of two."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

import deploy
from deploy import loading
from deploy.bundle.bundle_files import write_bundle
from deploy.bundle.manifest import MODEL
from deploy.cli import main
from deploy.errors import UserError
from tests.deploy.tiny import WEIGHTS, make_bundle, make_manifest, make_model

RED = np.zeros((32, 48, 3), np.uint8) + np.array([255, 0, 0], np.uint8)


@pytest.fixture
def bundle(tmp_path) -> Path:
    make_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def replace(bundle: Path) -> None:
    """Put a bundle there whose network and manifest count the classes from the other end."""
    old = make_manifest()
    manifest = msgspec.structs.replace(old, classes=tuple(reversed(old.classes)), name="second")
    model = make_model(manifest.input, WEIGHTS["rgb"][::-1].copy())
    write_bundle(bundle, manifest, {MODEL: model}, {MODEL: "fp32"})


def before_each(function: Callable, action: Callable[[], object], times: int) -> Callable:
    """The function, before whose first calls something happens."""
    left = [action] * times

    def called(*args, **kwargs):
        if left:
            left.pop()()
        return function(*args, **kwargs)

    return called


@pytest.mark.parametrize("step", ["verify_files", "open_engine"])
def test_a_bundle_that_is_replaced_meanwhile_is_opened_again(step, bundle, monkeypatch):
    changed = before_each(getattr(loading, step), lambda: replace(bundle), times=1)
    monkeypatch.setattr(loading, step, changed)
    model = deploy.load(bundle, backend="onnxruntime", threads=1)
    assert [info.name for info in model.classes] == ["blue", "green", "red"]
    assert model.classes[int(model(RED).labels[0, 0])].name == "red"


def test_a_bundle_that_is_always_replaced_is_refused(bundle, monkeypatch):
    changed = before_each(loading.open_engine, lambda: replace(bundle), times=100)
    monkeypatch.setattr(loading, "open_engine", changed)
    with pytest.raises(UserError, match="bundle: was replaced again and again while it was opened"):
        deploy.load(bundle, backend="onnxruntime", threads=1)


def test_a_command_uses_no_manifest_of_an_older_bundle(bundle, tmp_path, monkeypatch):
    np.save(tmp_path / "red.npy", RED)
    changed = before_each(loading.load, lambda: replace(bundle), times=1)
    monkeypatch.setattr("deploy.predict.command.load", changed)
    with pytest.raises(UserError, match="bundle: was replaced by another program meanwhile; run again"):
        main(["predict", str(bundle), str(tmp_path / "red.npy"), "--out", str(tmp_path / "out")])
