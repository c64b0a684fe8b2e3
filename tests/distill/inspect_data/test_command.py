"""`edgedistill inspect`: exact counts in one pass for any data set."""

import csv
import json
import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deploy.bundle.manifest import ClassInfo
from deploy.errors import UserError
from distill import cli
from distill.config import DataConfig
from distill.data.sample import make_sample
from distill.data.splits import Splits
from distill.data.stats import compute_stats
from distill.inspect_data import command as inspect_data
from distill.inspect_data.numbers import BINS, RunningSummary
from distill.inspect_data.survey import SHARES, Survey
from distill.inspect_data.tables import remarks
from distill.reporting import figures
from distill.tasks.registry import open_splits
from tests.distill.data.listed import Listed

VALUES = st.floats(-1e6, 1e6, width=32)
PIECES = st.lists(arrays(np.float32, st.integers(0, 30), elements=VALUES), min_size=1, max_size=6)


def counted(pieces, finest=0.0):
    numbers = RunningSummary(finest)
    for piece in pieces:
        numbers.update(piece)
    return numbers.summary()


class TestRunningSummary:
    @given(PIECES)
    def test_all_at_once_or_piece_by_piece(self, pieces):
        values = np.concatenate(pieces).astype(np.float64)
        found, backwards = counted(pieces), counted(pieces[::-1])
        if not values.size:
            assert found is None
            return
        assert found is not None
        assert backwards is not None
        assert (found.first, found.width, found.histogram) == (
            backwards.first,
            backwards.width,
            backwards.histogram,
        )
        assert (found.count, found.min, found.max) == (values.size, values.min(), values.max())
        scale = np.abs(values).max() + 1e-30
        assert found.mean == pytest.approx(values.mean(), abs=1e-9 * scale)
        assert found.std == pytest.approx(values.std(), abs=1e-9 * scale)
        edges = found.first + found.width * np.arange(len(found.histogram) + 1)
        assert found.histogram == tuple(np.histogram(values, edges)[0]) or edges[-1] in values
        assert sum(found.histogram) == values.size
        assert len(found.histogram) <= BINS
        assert math.frexp(found.width)[0] == 0.5
        # half as wide, they would not hold all
        narrow = np.floor(values / (found.width / 2))
        precision = found.width / 2 < 2.0 ** (math.frexp(np.abs(values).max())[1] - 24)
        assert narrow.max() - narrow.min() >= BINS or precision

    def test_bytes_have_a_bin_each(self):
        found = counted([np.array([3, 3, 255, 0], np.uint8), np.array([7], np.uint8)], finest=1.0)
        assert found is not None
        assert (found.first, found.width) == (0.0, 1.0)
        assert len(found.histogram) == 256
        assert [found.histogram[value] for value in (0, 3, 7, 255)] == [1, 2, 1, 1]

    def test_one_value(self):
        found = counted([np.full(4, -2.5)])
        assert found is not None
        assert (found.mean, found.std, found.min, found.max) == (-2.5, 0.0, -2.5, -2.5)
        assert found.histogram == (4,)
        assert found.first <= -2.5 < found.first + found.width


NAMES = ("land", "water", "ice")


def sample(name, label, image=None):
    label = np.array(label, np.uint8)
    if image is None:
        image = np.stack([label * 10.0 + c for c in range(5)], axis=2).astype(np.float32)
    return make_sample(image, label, id=name, num_classes=len(NAMES))


def splits(train, val, test=None):
    classes = tuple(ClassInfo(name, (0, 0, 0)) for name in NAMES)
    readers = [Listed(samples) for samples in (train, val)]
    channels = tuple(f"band_{c}" for c in range(5))
    last = readers[1] if test is None else Listed(test)
    return Splits("made", classes, channels, False, readers[0], readers[1], last)


def surveyed(data, tile=None):
    survey = Survey(data, tile)
    rows: list[dict[str, Any]] = [dict(zip(survey.header, row, strict=True)) for row in survey.rows()]
    return rows, survey.splits


class TestSurvey:
    def test_counts_by_hand(self):
        first = sample("a", [[0, 0, 1, 255], [0, 1, 1, 255]])
        first.image[2, 0, 0] = torch.nan
        image = first.image.numpy().transpose(1, 2, 0)
        first = sample("a", [[0, 0, 1, 255], [0, 1, 1, 255]], image)  # its first pixel has no data
        rows, (train, val) = surveyed(splits([first, sample("b", [[2, 2]])], [sample("c", [[0]])]))
        assert train.split == "train"
        assert train.images == 2
        assert train.sizes == {"2×4": 1, "1×2": 1}
        assert train.no_data == pytest.approx(1 / 10)
        assert train.void == pytest.approx(2 / 9)
        assert [(it.name, it.pixels, it.images) for it in train.classes] == [
            ("land", 2, 1),
            ("water", 3, 1),
            ("ice", 2, 1),
        ]
        assert train.classes[0].share == pytest.approx(2 / 7)
        land = train.classes[0].tiles  # 2 of 5 valid pixels in a, none in b
        assert (land[0], land[2 * SHARES // 5], sum(land)) == (1, 1, 2)
        assert train.classes[2].tiles[SHARES] == 1
        assert rows[0] == {
            "split": "train", "image": "a", "top": 0, "left": 0, "height": 2, "width": 4,
            "valid": 5 / 8, "land": 0.4, "water": 0.6, "ice": 0.0,
        }  # fmt: skip
        assert [row["image"] for row in rows] == ["a", "b", "c"]
        assert val.sizes == {"1×1": 1}

    def test_channels_are_those_that_training_normalizes_by(self):
        data = open_splits(DataConfig("synthetic", size=(40, 56), synthetic_counts=(6, 1, 1)))
        _, (train, *_) = surveyed(data)
        stats = compute_stats(data.train, 2)
        found = list(train.channels.values())
        assert [it.mean for it in found] == pytest.approx(stats.mean, rel=1e-9)
        assert [it.std for it in found] == pytest.approx(stats.std, rel=1e-9)
        assert tuple(it.pixels for it in train.classes) == stats.class_pixels
        assert all(it.count == sum(stats.class_pixels) for it in found)

    def test_tiles_cover_an_image_once(self):
        label = np.random.default_rng(0).integers(0, 3, (7, 10))
        rows, (train, _) = surveyed(splits([sample("a", label)], [sample("b", [[0]])]), tile=(3, 4))
        places = [(r["top"], r["left"], r["height"], r["width"]) for r in rows if r["split"] == "train"]
        assert len(places) == 9
        seen = np.zeros((7, 10), int)
        for top, left, height, width in places:
            seen[top : top + height, left : left + width] += 1
        assert (seen == 1).all()
        water = sum(r["water"] * r["height"] * r["width"] for r in rows if r["split"] == "train")
        assert water == pytest.approx((label == 1).sum())
        assert all(sum(it.tiles) == 9 for it in train.classes)

    def test_oddities_are_reported(self):
        void = sample("v", [[255, 255]])
        data = splits([sample("a", [[0, 1]]), void], [sample("b", [[0, 0]])], [sample("c", [[0, 2]])])
        assert list(remarks(surveyed(data)[1])) == [
            "class 'ice' never occurs in train",
            "1 of the 2 images of train have no valid pixel",
            "every valid pixel of val is 'land': scores there say nothing about other classes",
            *(f"channel 'band_{c}' of val is {c} everywhere" for c in range(5)),
            "class 'water' never occurs in test",
        ]

    def test_a_split_without_a_valid_pixel(self):
        rows, (_, val) = surveyed(splits([sample("a", [[0, 1, 2]])], [sample("v", [[255, 255]])]))
        assert [it.share for it in val.classes] == [None] * 3
        assert rows[-1]["valid"] == 0.0
        assert rows[-1]["water"] is None
        assert set(val.channels.values()) == {None}

    def test_memory_does_not_grow_with_the_images(self):
        label = np.random.default_rng(0).integers(0, 3, (64, 64))

        class Endless(Listed):
            def __init__(self, count):
                self.count, self.ids = count, []

            def __len__(self):
                return self.count

            def __getitem__(self, index):
                return sample(str(index), label)

        def peak(count):
            data = splits([], [sample("b", [[0]])])
            object.__setattr__(data, "train", Endless(count))
            survey = Survey(data)
            tracemalloc.start()
            for _ in survey.rows():
                pass
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return most

        peak(5)
        assert peak(60) < peak(5) + 50_000  # an image alone is 80 kB


class TestCommand:
    @pytest.mark.parametrize(
        ("preset", "files", "words"),
        [
            ("smoke", {"classes.csv", "classes.png", "tiles.png"}, "water"),
            ("quick-grasp", {"grasps.csv", "grasps.png"}, "per image"),
        ],
    )
    def test_built_in_data(self, tmp_path, capsys, preset, files, words):
        fields = ["--data.size", "40", "40", "--data.synthetic-counts", "3", "2", "2", "--out", str(tmp_path)]
        assert cli.main(["inspect", preset, *fields]) == 0
        out = tmp_path / "inspect"
        assert {path.name for path in out.iterdir()} == files | {
            "inspect.json",
            "tiles.csv",
            "channels.csv",
            "channels.png",
        }
        printed = capsys.readouterr().out
        assert words in printed
        assert "train: 3 images of 40×40" in printed
        found = json.loads((out / "inspect.json").read_text())
        assert [one["split"] for one in found["splits"]] == ["train", "val", "test"]
        with (out / "tiles.csv").open() as file:
            assert len(list(csv.DictReader(file))) == 7
        assert all((out / name).stat().st_size > 1000 for name in files if name.endswith("png"))

    def test_grasps_are_those_of_the_data(self):
        data = open_splits(DataConfig("tabletop", size=(64, 64), synthetic_counts=(3, 1, 1)))
        rows, (train, *_) = surveyed(data)
        grasps = [data.train[index].grasps for index in range(3)]
        assert [row["grasps"] for row in rows[:3]] == [len(its) for its in grasps]
        assert train.grasps is not None
        widths = train.grasps["width"]
        assert widths is not None
        assert widths.count == sum(map(len, grasps))
        assert widths.mean == pytest.approx(np.concatenate(grasps)[:, 3].mean())
        assert train.classes == ()
        holes = np.mean([not_measured(data.train[index]) for index in range(3)])
        assert train.no_data == pytest.approx(holes)

    def test_without_matplotlib(self, tmp_path, monkeypatch):
        monkeypatch.setattr(figures, "find_spec", lambda name: None)
        with pytest.raises(
            UserError, match=r"inspect draws with matplotlib: pip install 'edgedistill\[bench\]'"
        ):
            inspect_data.main(["smoke", "--out", str(tmp_path / "x")])
        assert not (tmp_path / "x").exists()

    def test_mistakes(self, tmp_path):
        with pytest.raises(UserError, match=r"unknown preset 'smok' \(did you mean smoke\?\)"):
            inspect_data.main(["smok"])
        with pytest.raises(UserError, match="no such folder"):
            inspect_data.main(["folder", "--data.root", str(tmp_path / "none"), "--out", str(tmp_path)])

    @pytest.mark.realdata("camvid")
    def test_camvid(self, data_root, monkeypatch, tmp_path):
        monkeypatch.setenv("EDGEDISTILL_DATA", str(data_root))
        data = open_splits(DataConfig("camvid"))
        object.__setattr__(data, "train", Listed([data.train[0]]))
        object.__setattr__(data, "val", Listed([data.val[0]]))
        object.__setattr__(data, "test", data.val)
        _, found = surveyed(data, tile=(100, 100))
        assert [one.split for one in found] == ["train", "val"]
        assert found[0].sizes == {"360×480": 1}


def not_measured(grasp_sample):
    return float((~np.isfinite(grasp_sample.image.numpy())).mean())
