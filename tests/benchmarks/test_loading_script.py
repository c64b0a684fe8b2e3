"""benchmarks/loading.py on a tiny folder of files, and on synthetic scenes, which have none."""

import json

import numpy as np
import pytest

from benchmarks.loading import main
from deploy.errors import UserError
from deploy.files.images import write_png

STEPS = [
    "read",
    "to network scale",
    "augment",
    "collate (of 2)",
    "batch, cold (of 2)",
    "batch, from the cache (of 2)",
]
FAST = ("--images", "3", "--rounds", "1")


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for index in range(4):
            write_png(
                _made(tmp_path / "data" / split / "images") / f"{index}.png",
                rng.integers(0, 256, (40, 50, 3), dtype=np.uint8),
            )
            write_png(
                _made(tmp_path / "data" / split / "masks") / f"{index}.png",
                rng.integers(0, 2, (40, 50), dtype=np.uint8),
            )
    return tmp_path / "data"


def _made(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_files_are_decoded_by_each_decoder(folder, tmp_path, capsys):
    report = tmp_path / "report.json"
    main(["folder", f"--data.root={folder}", "--student-train.batch-size=2", *FAST, "--json", str(report)])
    content = json.loads(report.read_text())
    rows = {row["step"]: row for row in content["rows"]}
    assert list(rows)[6:] == STEPS
    assert list(rows)[:3] == ["decode image, Pillow", "decode image, OpenCV", "decode image, torchvision"]
    assert all(
        row["equals_pillow"] for name, row in rows.items() if name.startswith("decode")
    )  # PNG is exact
    assert all(0 < row["median"] <= row["p90"] for row in rows.values())
    assert content["machine"]["python"]
    assert "batch, from the cache" in capsys.readouterr().out


def test_scenes_without_files_start_at_the_reader(tmp_path):
    report = tmp_path / "report.json"
    main(["smoke", *FAST, "--json", str(report)])
    assert [row["step"] for row in json.loads(report.read_text())["rows"]] == STEPS


def test_nothing_to_measure_is_refused():
    with pytest.raises(UserError, match="--images 0 --rounds 5: give at least 1"):
        main(["smoke", "--images", "0"])
