"""Compiled networks in the user's cache."""

import os

import numpy as np
import pytest

import deploy
from deploy.backends import blobs
from deploy.backends.blobs import blob_file, keep_blob, read_blob
from deploy.backends.setting import Setting
from deploy.bundle.bundle_files import extend_bundle, read_manifest
from tests.deploy.tiny import WEIGHTS, make_bundle, make_image, make_manifest, make_model

SETTING = Setting("openvino", "fp32", 1)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_was_compiled_is_kept_and_checked(cache):
    path = cache / "a.blob"
    assert read_blob(path) is None
    keep_blob(path, b"compiled")
    assert read_blob(path) == b"compiled"
    assert path.stat().st_mode & 0o777 == 0o600
    assert cache.stat().st_mode & 0o777 == 0o700
    content = path.read_bytes()
    for damaged in (b"", content[:-1], content[:-1] + b"D", content + b"D"):
        path.write_bytes(damaged)
        assert read_blob(path) is None


def test_the_file_depends_on_the_bundle_the_machine_and_the_setting(tmp_path):
    make_bundle(tmp_path / "bundle")
    before = read_manifest(tmp_path / "bundle")
    files = {
        blob_file(before, "here", SETTING),
        blob_file(before, "there", SETTING),
        blob_file(before, "here", Setting("openvino", "int8", 1)),
    }
    extend_bundle(tmp_path / "bundle", {"notes.txt": b"another manifest"})
    files.add(blob_file(read_manifest(tmp_path / "bundle"), "here", SETTING))
    assert len(files) == 4


def test_the_oldest_give_way(cache, monkeypatch):
    monkeypatch.setattr(blobs, "MOST", 2)
    for number in range(4):
        keep_blob(cache / f"{number}.blob", b"x")
        os.utime(cache / f"{number}.blob", (number, number))
    assert sorted(path.name for path in cache.iterdir()) == ["2.blob", "3.blob"]


def test_where_nothing_can_be_written_nothing_is_kept(cache):
    cache.write_text("a file where the folder should be")
    keep_blob(cache / "a.blob", b"compiled")
    assert read_blob(cache / "a.blob") is None


def test_a_compiled_network_in_a_bundle_is_never_run(tmp_path):
    """What lies in `engines/` came with the bundle, and no checksum of the manifest covers it."""
    pytest.importorskip("openvino")
    from deploy.backends.openvino_cpu import OvEngine

    bundle, image = tmp_path / "bundle", make_image()
    make_bundle(bundle)
    expected = deploy.load(bundle, "onnxruntime")(image)
    deploy.load(bundle)  # chooses
    other = make_model(make_manifest().input, -WEIGHTS["rgb"])
    foreign = OvEngine(other, threads=1).export()
    for threads in ("", "-1", "-2"):
        (bundle / "engines" / f"openvino-fp32{threads}.blob").write_bytes(foreign)
    np.testing.assert_allclose(deploy.load(bundle)(image).probabilities, expected.probabilities, atol=1e-4)
