"""Models are compared on data that training reads: what `classes.json` says of its masks counts."""

import json
from pathlib import Path

import numpy as np
import pytest

from deploy.bundle.bundle_files import read_manifest
from deploy.errors import UserError
from deploy.files.images import write_png
from distill.compare.labeled import labeled_samples, require_labeled
from tests.deploy.tiny import make_bundle, make_image

CLASSES = [{"name": "water", "value": 0}, {"name": "land", "value": 255}]


@pytest.fixture
def manifest(tmp_path: Path):
    make_bundle(tmp_path / "bundle", "sar")
    return read_manifest(tmp_path / "bundle")


def make_data(root: Path, classes: list, splits: tuple[str, ...] = ("train", "val", "test")) -> Path:
    for split in splits:
        mask = np.zeros((32, 48), np.uint8)
        mask[:10] = 255
        write_png(root / split / "masks" / "a.png", mask)
        (root / split / "images").mkdir()
        np.save(root / split / "images" / "a.npy", make_image("sar"))
    (root / "classes.json").write_text(json.dumps(classes))
    return root


@pytest.mark.parametrize("splits", [("train", "val", "test"), ("test",)])
def test_a_class_of_255_is_not_void(tmp_path, manifest, splits):
    data = make_data(tmp_path / "data", CLASSES, splits)
    require_labeled(data, "test", manifest)
    [(name, image, label, valid)] = labeled_samples(data, "test", manifest)
    assert name == "a"
    assert image.shape == (32, 48, 2)
    assert valid.all()
    assert (label[:10] == 1).all()
    assert (label[10:] == 0).all()


def test_other_classes_are_refused(tmp_path, manifest):
    data = make_data(tmp_path / "data", CLASSES[::-1])
    with pytest.raises(
        UserError, match="has the classes land, water, the bundle water, land; give data of the same"
    ):
        require_labeled(data, "test", manifest)
    with pytest.raises(UserError, match=r"data2: has no split held; give --split val"):
        require_labeled(make_data(tmp_path / "data2", CLASSES), "held", manifest)


def test_data_that_is_not_split_yet(tmp_path, manifest):
    for index in range(30):
        write_png(
            tmp_path / "data" / "masks" / f"{index}.png",
            np.arange(32 * 48, dtype=np.uint8).reshape(32, 48) % 2,
        )
        (tmp_path / "data" / "images").mkdir(exist_ok=True)
        np.save(tmp_path / "data" / "images" / f"{index}.npy", make_image("sar", index))
    require_labeled(tmp_path / "data", "test", manifest)
    samples = list(labeled_samples(tmp_path / "data", "test", manifest))
    assert 0 < len(samples) < 30
    assert {int(value) for _, _, label, _ in samples for value in np.unique(label)} == {0, 1}
