"""The fingerprint of a data set: equal for equal data, and different, in words, for what a training would notice."""

import shutil
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from deploy.bundle.manifest import ClassInfo
from deploy.files.atomic import sha256_file
from deploy.files.images import write_png
from distill.config import DataConfig
from distill.data import fingerprint as module
from distill.data.channels import choose_channels
from distill.data.fingerprint import Fingerprint, SplitFingerprint, differences, digest_of, fingerprint
from distill.data.splits import files_of
from distill.tasks.registry import open_splits


def write_pair(folder, name, seed=0, size=24):
    rng = np.random.default_rng(seed)
    label = (np.indices((size, size)).sum(0) // 8 % 2).astype(np.uint8)
    write_png(folder / "images" / f"{name}.png", rng.integers(0, 255, (size, size, 3), np.uint8))
    write_png(folder / "masks" / f"{name}.png", label)


@pytest.fixture
def root(tmp_path):
    for split in ("train", "val", "test"):
        for number in range(4):
            write_pair(tmp_path / "data" / split, f"{number}", seed=number)
    return tmp_path / "data"


def found(root) -> Fingerprint:
    return fingerprint(open_splits(DataConfig("folder", root, size=(24, 24))))


def test_equal_data_elsewhere_are_equal(root, tmp_path):
    shutil.copytree(root, tmp_path / "copy")
    assert differences(found(root), found(tmp_path / "copy")) == []
    stored = msgspec.json.decode(msgspec.json.encode(found(root)), type=Fingerprint)
    assert differences(stored, found(root)) == []


def test_images_added_removed_and_changed_are_named(root):
    before = found(root)
    write_pair(root / "train", "new")
    for kind in ("images", "masks"):
        (root / "val" / kind / "2.png").unlink()
    write_pair(root / "test", "1", seed=99)
    assert differences(before, found(root)) == [
        "1 of train added (new)",
        "1 of val removed (2)",
        "1 of test changed (1)",
    ]


def test_a_mask_of_the_same_size_in_bytes_is_noticed(root):
    before = found(root)
    mask = root / "train" / "masks" / "3.png"
    content = bytearray(mask.read_bytes())
    content[-13] ^= 1
    mask.write_bytes(content)
    splits_before = before.splits["train"]
    now = SplitFingerprint(
        splits_before.ids, splits_before.sizes, {**splits_before.digests, "3 1": sha256_file(mask)}
    )
    assert differences(before, msgspec.structs.replace(before, splits={**before.splits, "train": now})) == [
        "1 of train changed (3)"
    ]


def test_classes_and_channels_in_their_order():
    splits = open_splits(DataConfig("synthetic", size=(32, 32), synthetic_counts=(2, 1, 1)))
    before = fingerprint(splits)
    assert differences(before, fingerprint(choose_channels(splits, ["VH", "VV"]))) == [
        "channels were VV, VH, are VH, VV"
    ]
    turned = replace(splits, classes=splits.classes[::-1])
    (line,) = differences(before, fingerprint(turned))
    assert line.startswith("classes were land #")
    recolored = replace(splits, classes=(ClassInfo("land", (1, 2, 3)), *splits.classes[1:]))
    assert "land #010203" in differences(before, fingerprint(recolored))[0]


def test_another_order_of_the_same_images():
    before = SplitFingerprint(["a", "b"], [[1], [1]], {})
    now = SplitFingerprint(["b", "a"], [[1], [1]], {})
    pair = [Fingerprint([], [], {"train": split}) for split in (before, now)]
    assert differences(*pair) == ["train is in another order"]


def test_large_data_are_read_in_part_and_counted_whole(root, monkeypatch):
    monkeypatch.setattr(module, "IMAGE_BYTES", 1)
    partly = found(root).splits["train"]
    assert len([key for key in partly.digests if key.endswith(" 0")]) == 1
    assert len([key for key in partly.digests if key.endswith(" 1")]) == 4
    assert len(partly.sizes) == 4


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.realdata(name)) for name in ("camvid", "ombria", "cornell_rgb")],
)
def test_readers_of_files_name_them(name, data_root):
    splits = open_splits(DataConfig(name, data_root / name))
    for reader in (splits.train, splits.val, splits.test):
        paths = files_of(reader, len(reader) - 1)
        assert len(paths) >= 2
        assert all(path.is_file() for path in paths)


def test_a_changed_mask_changes_the_digest_of_its_split(root):
    before = digest_of(open_splits(DataConfig("folder", root, size=(24, 24))).train)
    assert digest_of(open_splits(DataConfig("folder", root, size=(24, 24))).train) == before
    write_png(root / "train" / "masks" / "1.png", np.zeros((24, 24), np.uint8))
    assert digest_of(open_splits(DataConfig("folder", root, size=(24, 24))).train) != before
