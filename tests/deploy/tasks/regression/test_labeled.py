"""Labeled maps are read back as they were written, and damaged ones are refused by name."""

import numpy as np
import pytest

from deploy.bundle.manifest import InputSpec, Manifest
from deploy.errors import UserError
from deploy.tasks.regression.labeled import read_maps, write_maps
from deploy.tasks.regression.levels import LEVELS

SPEC = InputSpec(("R", "G", "B"), 4, 6, "uint8", "NHWC", mean=(0.0,) * 3, std=(1.0,) * 3)
MANIFEST = Manifest(task="regression", name="m", classes=LEVELS, input=SPEC, outputs=())


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    samples = [
        (f"s{index}", rng.integers(0, 256, (5, 7, 3), np.uint8), rng.random((5, 7)), rng.random((5, 7)) < 0.8)
        for index in range(3)
    ]
    assert write_maps(tmp_path, samples) == 3
    return tmp_path, samples


def test_round_trip(folder):
    path, samples = folder
    for (name, image, values, valid), (_, image0, values0, valid0) in zip(
        read_maps(path, MANIFEST), samples, strict=True
    ):
        assert name.endswith(("s0", "s1", "s2"))
        np.testing.assert_array_equal(image, image0)
        np.testing.assert_array_equal(valid, valid0)
        np.testing.assert_array_equal(values[valid], values0[valid0].astype(np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "cannot be read .*each image needs its map"),
        (lambda path: path.write_bytes(b"no array"), "cannot be read"),
        (
            lambda path: np.save(path, np.zeros((5, 6))),
            r"holds float64 5×6; give real numbers of the image's size 5×7",
        ),
        (lambda path: np.save(path, np.zeros((5, 7), complex)), "holds complex128 5×7"),
        (lambda path: np.save(path, np.array([{}], object), allow_pickle=True), "cannot be read"),
    ],
)
def test_damaged_maps_are_refused(folder, change, message):
    path, _ = folder
    first = sorted((path / "values").iterdir())[0]
    change(first)
    with pytest.raises(UserError, match=f"{first.name}: {message}"):
        list(read_maps(path, MANIFEST))


def test_a_missing_folder_is_named(folder):
    path, _ = folder
    (path / "values").rename(path / "elsewhere")
    with pytest.raises(UserError, match="values: no such folder"):
        list(read_maps(path, MANIFEST))
