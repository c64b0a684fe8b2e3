"""manifest.py and bundle_files.py: a bundle is read as it was written, and every kind of damage is named."""

import errno
import json
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest

from deploy.bundle.bundle_files import extend_bundle, read_manifest, verify_files, write_bundle
from deploy.bundle.golden_file import read_golden
from deploy.bundle.manifest import GOLDEN, MANIFEST, MODEL, ClassInfo, InputSpec
from deploy.errors import UserError
from deploy.files import staging
from tests.deploy.tiny import make_bundle, make_manifest


@pytest.fixture
def bundle(tmp_path) -> Path:
    make_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refused(bundle: Path) -> str:
    with pytest.raises(UserError) as caught:
        verify_files(bundle, read_manifest(bundle))
    message = str(caught.value)
    assert "\n" not in message
    return message


def edit(bundle: Path, **changes: object) -> None:
    path = bundle / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_round_trip(tmp_path):
    source = tmp_path / "receipt.json"
    source.write_text("{}")
    given = make_manifest("sar")
    written = write_bundle(tmp_path / "b", given, {MODEL: b"onnx", "receipt.json": source}, {MODEL: "fp32"})
    assert read_manifest(tmp_path / "b") == written
    assert msgspec.structs.replace(written, files={}, digest="") == given
    assert written.files[MODEL].bytes == 4
    assert (written.files[MODEL].precision, written.files["receipt.json"].precision) == ("fp32", "")
    assert names(tmp_path) == ["b", "receipt.json"]
    verify_files(tmp_path / "b", written)


def test_integers_among_the_metrics_do_not_break_the_digest(tmp_path):
    manifest = msgspec.structs.replace(make_manifest(), metrics={"images": 233, "miou": 1, "tiny": 1e-7})
    write_bundle(tmp_path / "b", manifest, {})
    assert read_manifest(tmp_path / "b").metrics == {"images": 233, "miou": 1, "tiny": 1e-7}


def test_layout_of_the_json_does_not_matter_but_content_does(bundle):
    before = read_manifest(bundle)
    edit(bundle)  # same content, other white space
    assert read_manifest(bundle) == before
    edit(bundle, metrics={"miou": 0.99})
    assert "manifest.json: was changed after the export" in refused(bundle)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff\xfe", b'{"schema_version": "one"}'])
def test_not_a_manifest(bundle, content):
    (bundle / MANIFEST).write_bytes(content)
    assert "manifest.json: is not a manifest" in refused(bundle)


def test_newer_schema_asks_for_an_upgrade(bundle):
    edit(bundle, schema_version=2, something="new")
    assert "schema version 2" in refused(bundle)


def test_not_a_bundle(tmp_path):
    assert "has no manifest.json" in refused(tmp_path)
    assert "no such folder" in refused(tmp_path / "gone")


def test_damaged_files_are_named(bundle):
    path = bundle / MODEL
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    assert f"model.onnx: has {len(data) - 10} bytes instead of {len(data)}" in refused(bundle)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "model.onnx: differs from the exported file (checksum mismatch)" in refused(bundle)
    path.unlink()
    assert "model.onnx: is missing" in refused(bundle)


def test_engines_beside_the_bundle_are_not_its_business(bundle):
    (bundle / "model.engine").write_bytes(b"compiled")
    verify_files(bundle, read_manifest(bundle))


def test_replacing_a_bundle_leaves_only_the_new_one(bundle):
    (bundle / "model.engine").write_bytes(b"of the old model")
    manifest = write_bundle(bundle, make_manifest(), {MODEL: b"new"})
    assert read_manifest(bundle) == manifest
    assert names(bundle) == [MANIFEST, MODEL]
    assert names(bundle.parent) == ["bundle"]


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_interruption_leaves_the_old_bundle_with_its_engines(bundle, monkeypatch, failing):
    """At the exchange, or without one at either rename: of the old bundle, of the new one."""
    (bundle / "engines").mkdir()
    (bundle / "engines" / "a.engine").write_bytes(b"compiled")
    before, renames, rename = read_manifest(bundle), [], Path.rename

    def interrupted(self, target):
        renames.append(self)
        if len(renames) == failing:
            raise KeyboardInterrupt
        return rename(self, target)

    def exchange(one, other):
        if failing == 0:
            raise KeyboardInterrupt
        return False

    with monkeypatch.context() as patch:
        patch.setattr(staging, "exchange", exchange)
        patch.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            extend_bundle(bundle, {"more.onnx": b"new"})
    assert names(bundle.parent) == ["bundle"]
    assert read_manifest(bundle) == before
    verify_files(bundle, before)
    assert (bundle / "engines" / "a.engine").read_bytes() == b"compiled"


def test_a_linked_bundle_is_replaced_where_it_lies(bundle, tmp_path):
    (tmp_path / "link").symlink_to(bundle)
    manifest = extend_bundle(tmp_path / "link", {"more.onnx": b"new"})
    assert (tmp_path / "link").is_symlink()
    assert read_manifest(bundle) == manifest
    assert names(tmp_path) == ["bundle", "link"]


def test_files_can_be_dropped_though_damaged(bundle):
    extend_bundle(bundle, {"a.svg": b"a", "b.onnx": b"b"})
    for name in ("a.svg", "b.onnx"):
        (bundle / name).write_bytes(b"damaged")
    manifest = extend_bundle(bundle, {"b.onnx": b"better"}, drop=["a.svg", "b.onnx", "never.there"])
    verify_files(bundle, manifest)
    assert (bundle / "b.onnx").read_bytes() == b"better"
    assert not (bundle / "a.svg").exists()


def test_other_folders_are_never_replaced(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="is not a bundle, so it is not replaced"):
        write_bundle(tmp_path, make_manifest(), {})
    assert names(tmp_path) == ["thesis.tex"]


def test_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/b: cannot be written"):
        write_bundle(tmp_path / "file" / "b", make_manifest(), {})


def test_missing_source_file_is_not_blamed_on_the_bundle(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"elsewhere\.onnx"):
        write_bundle(tmp_path / "b", make_manifest(), {MODEL: tmp_path / "elsewhere.onnx"})
    assert names(tmp_path) == []


def test_full_disk_names_the_file_and_keeps_the_old_bundle(bundle, monkeypatch):
    before = read_manifest(bundle)

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"bundle/model\.onnx: the disk is full"):
            write_bundle(bundle, make_manifest(), {MODEL: b"new"})
    assert names(bundle.parent) == ["bundle"]
    verify_files(bundle, before)


def test_invalid_manifest_is_not_written(tmp_path):
    manifest = msgspec.structs.replace(make_manifest(), metrics={"miou": float("nan")})
    with pytest.raises(UserError, match="metrics"):
        write_bundle(tmp_path / "b", manifest, {})
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["../a", "a/b", MANIFEST])
def test_files_stay_inside_the_bundle(tmp_path, name):
    with pytest.raises(ValueError, match="not a plain file name"):
        write_bundle(tmp_path / "b", make_manifest(), {name: b""})
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": (1.0,)}, "do not match"),
        ({"height": 0}, "not positive"),
        ({"std": (1.0, 0.0, 1.0)}, "not positive"),
        ({"layout": "NCHW"}, "neither uint8 NHWC"),
        ({"nodata": "nan"}, "cannot be NaN"),
    ],
)
def test_input_that_cannot_be(change, message):
    good = {
        "height": 2,
        "width": 2,
        "dtype": "uint8",
        "layout": "NHWC",
        "mean": (1.0,) * 3,
        "std": (1.0,) * 3,
    }
    InputSpec(channels=("R", "G", "B"), **good)
    with pytest.raises(ValueError, match=message):
        InputSpec(channels=("R", "G", "B"), **good | change)


def test_manifest_that_cannot_be():
    with pytest.raises(ValueError, match="ignore_label"):
        msgspec.structs.replace(make_manifest(), ignore_label=2)
    with pytest.raises(ValueError, match="at least one"):
        msgspec.structs.replace(make_manifest(), classes=())
    with pytest.raises(ValueError, match="color"):
        ClassInfo("sky", (0, 0, 256))


def test_golden(bundle):
    golden = read_golden(bundle)
    assert golden["inputs"].shape == (2, 32, 48, 3)
    assert golden["labels"].shape == (2, 32, 48)
    assert golden["logits"].shape == (2, 3, 4, 6)
    np.savez(bundle / GOLDEN, inputs=golden["inputs"])
    with pytest.raises(UserError, match=r"golden\.npz: does not hold"):
        read_golden(bundle)
    (bundle / GOLDEN).unlink()
    with pytest.raises(UserError, match=r"golden\.npz: is missing"):
        read_golden(bundle)


def test_manifest_struct_is_frozen():
    manifest = make_manifest()
    with pytest.raises(AttributeError):
        manifest.name = "other"
    assert msgspec.structs.replace(manifest, name="other").name == "other"


@pytest.mark.parametrize("name", [MANIFEST, MODEL])
def test_files_of_a_bundle_are_no_links(bundle, tmp_path, name):
    (bundle / name).rename(tmp_path / "elsewhere")
    (bundle / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(
        UserError, match=f"{name}: is a symbolic link, a bundle holds files; copy it with cp -rL"
    ):
        verify_files(bundle, read_manifest(bundle))
