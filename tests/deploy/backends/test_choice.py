"""What `auto` remembers, and what its memory depends on."""

import os
from importlib.machinery import ModuleSpec
from importlib.metadata import version

import numpy
import pytest

from deploy import host
from deploy.backends import choice
from deploy.backends.choice import Choice, can_remember, installed_version, key, recall, remember
from deploy.backends.setting import Setting
from deploy.bundle.bundle_files import extend_bundle, read_manifest
from tests.deploy.tiny import make_bundle

CHOICE = Choice(Setting("openvino", "int8", 2), {"openvino int8": 1.5}, {"openvino int8": 0.99})


@pytest.fixture
def folder(tmp_path):
    make_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_a_choice_is_recalled_for_its_key_and_bundle_only(folder):
    manifest = read_manifest(folder)
    assert recall(folder, manifest, "here") is None
    remember(folder, manifest, "here", CHOICE)
    remember(folder, manifest, "there", CHOICE)
    assert recall(folder, manifest, "here") == CHOICE
    assert recall(folder, manifest, "elsewhere") is None
    extend_bundle(folder, {"notes.txt": b"another manifest"})
    assert recall(folder, read_manifest(folder), "here") is None


def test_where_nothing_can_be_written_nothing_is_remembered(folder, monkeypatch):
    assert can_remember(folder)
    (folder / "engines").write_text("a file where the folder should be")
    remember(folder, read_manifest(folder), "here", CHOICE)
    assert recall(folder, read_manifest(folder), "here") is None
    monkeypatch.setattr(choice.os, "access", lambda path, mode: mode != os.W_OK)
    assert not can_remember(folder)


def test_the_key_names_what_the_speed_depends_on(monkeypatch):
    first = key(["onnxruntime"], None, "auto")
    assert f"onnxruntime-{version('onnxruntime')}" in first
    assert first == key(["onnxruntime"], None, "auto")
    others = [key(["onnxruntime"], 1, "auto"), key(["onnxruntime"], None, "fp32"), key([], None, "auto")]
    for name, value in (
        ("cpu_name", "another"),
        ("cpu_flags", ("neon",)),
        ("cpu_quota", 0.5),
        ("usable_cores", 99),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(host, name, lambda value=value: value)
            others.append(key(["onnxruntime"], None, "auto"))
    assert len({first, *others}) == 1 + len(others)


def test_versions_are_found_without_importing(tmp_path, monkeypatch):
    assert installed_version("numpy") == f"numpy-{numpy.__version__}"
    assert installed_version("nowhere_to_be_found") == "nowhere_to_be_found"
    package = tmp_path / "onnxruntime" / "__init__.py"
    monkeypatch.setattr(choice, "find_spec", lambda name: ModuleSpec(name, None, origin=str(package)))
    for info, found in (
        ("onnxruntime_gpu-1.32.0.dist-info", "onnxruntime_gpu-1.32.0"),  # a build under another name
        ("onnxruntime-1.33.0.dist-info", "onnxruntime-1.33.0"),
    ):
        (tmp_path / info).mkdir()
        assert installed_version("onnxruntime") == found
