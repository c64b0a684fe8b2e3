"""engine_files.py: an engine is listed only with a sidecar that describes it."""

import errno

import msgspec
import pytest

from deploy.bundle.bundle_files import extend_bundle, read_manifest, verify_files
from deploy.bundle.engine_files import (
    Sidecar,
    list_engines,
    read_engine,
    read_sidecar,
    record_verdict,
    write_engine,
)
from deploy.errors import UserError
from tests.deploy.tiny import make_bundle

SIDECAR = Sidecar(
    source="model.onnx",
    source_sha256="0" * 64,
    sha256="",
    bytes=0,
    backend="tensorrt-rtx",
    version="1.7.1.116",
    precision="fp32",
    targets=("sm86",),
    batch=(1, 1, 1),
    key="abc",
    build_seconds=1.0,
)


@pytest.fixture
def bundle(tmp_path):
    make_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_what_is_written_is_listed_and_verifies(bundle):
    path = write_engine(bundle, "rtx-fp32", b"engine", SIDECAR)
    ((found, sidecar),) = list_engines(bundle, "tensorrt-rtx")
    assert (found, sidecar.bytes, len(sidecar.sha256)) == (path, 6, 64)
    assert sidecar == read_sidecar(path)
    read_engine(path, sidecar)


def test_only_the_asked_backend_and_precision(bundle):
    write_engine(bundle, "a", b"a", SIDECAR)
    write_engine(bundle, "b", b"b", msgspec.structs.replace(SIDECAR, precision="int8"))
    assert [side.precision for _, side in list_engines(bundle, "tensorrt-rtx", "int8")] == ["int8"]
    assert list_engines(bundle, "tensorrt") == []


def test_an_older_engine_stays_when_the_disk_is_full(bundle, monkeypatch):
    path = write_engine(bundle, "a", b"older", SIDECAR)

    def fsync(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    with pytest.raises(UserError, match=r"a\.(engine|json): the disk is full"):
        write_engine(bundle, "a", b"newer", SIDECAR)
    ((found, sidecar),) = list_engines(bundle, "tensorrt-rtx")
    assert (found, read_engine(path, sidecar)) == (path, b"older")
    assert sorted(one.name for one in path.parent.iterdir()) == ["a.engine", "a.json"]


def test_a_changed_engine_is_refused(bundle):
    path = write_engine(bundle, "a", b"engine", SIDECAR)
    path.write_bytes(b"enginE")
    with pytest.raises(UserError, match=r"a\.engine: differs from what was built \(checksum mismatch\)"):
        read_engine(path, read_sidecar(path))


def test_an_engine_without_or_with_a_broken_sidecar(bundle):
    path = write_engine(bundle, "a", b"engine", SIDECAR)
    path.with_suffix(".json").write_text("{}")
    with pytest.raises(UserError, match=r"a\.json: is not an engine's sidecar"):
        read_sidecar(path)
    path.with_suffix(".json").unlink()
    assert list_engines(bundle, "tensorrt-rtx") == []
    with pytest.raises(UserError, match=r"a\.engine: has no sidecar a\.json beside it; build it again"):
        read_sidecar(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "is not an engine's sidecar"),
        (b'{"source": "\xff"}', "is not an engine's sidecar"),
        (b"[]", "is not an engine's sidecar"),
        (b'{"schema_version": 3, "novelty": 1}', "has schema 3, this version reads up to 2; update"),
    ],
)
def test_a_sidecar_that_cannot_be_read(bundle, content, message):
    path = write_engine(bundle, "a", b"engine", SIDECAR)
    good = write_engine(bundle, "b", b"engine", SIDECAR)
    path.with_suffix(".json").write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.json: {message}"):
        read_sidecar(path)
    refusals = []
    assert [found for found, _ in list_engines(bundle, "tensorrt-rtx", refusals=refusals)] == [good]
    assert len(refusals) == 1


def test_what_is_not_there_does_not_count(bundle):
    path = write_engine(bundle, "a", b"engine", SIDECAR)
    path.unlink()
    assert list_engines(bundle, "tensorrt-rtx") == []
    path.symlink_to("gone")
    assert list_engines(bundle, "tensorrt-rtx") == []
    with pytest.raises(UserError, match=r"a\.engine: cannot be read"):
        read_engine(path, SIDECAR)


def test_the_verdict_is_written_into_the_sidecar(bundle):
    path = write_engine(bundle, "a", b"engine", SIDECAR)
    before = read_sidecar(path)
    assert before.passed is None
    for passed in (False, True):
        record_verdict(path, passed)
        assert read_sidecar(path) == msgspec.structs.replace(before, passed=passed)
    read_engine(path, before)


class TestExtendBundle:
    def test_adds_files_and_metrics_and_keeps_the_rest(self, bundle):
        engine = write_engine(bundle, "a", b"engine", SIDECAR)
        before = read_manifest(bundle)

        manifest = extend_bundle(bundle, {"more.onnx": b"12345"}, {"more.onnx": "int8"}, {"int8 miou": 0.4})

        assert manifest == read_manifest(bundle)
        verify_files(bundle, manifest)
        assert manifest.files["more.onnx"].precision == "int8"
        assert {name: entry for name, entry in manifest.files.items() if name in before.files} == before.files
        assert manifest.metrics == before.metrics | {"int8 miou": 0.4}
        assert engine.read_bytes() == b"engine"

    def test_replaces_a_file(self, bundle):
        extend_bundle(bundle, {"more.onnx": b"12345"})
        extend_bundle(bundle, {"more.onnx": b"678"})
        assert (bundle / "more.onnx").read_bytes() == b"678"

    def test_refuses_a_damaged_bundle_and_leaves_it(self, bundle):
        (bundle / "model.onnx").write_bytes(b"damaged")
        with pytest.raises(UserError, match=r"model\.onnx: has 7 bytes"):
            extend_bundle(bundle, {"more.onnx": b"12345"})
        assert not (bundle / "more.onnx").exists()
