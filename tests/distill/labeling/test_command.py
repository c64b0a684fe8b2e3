"""`edgedistill label`: masks that training reads, void where a network is unsure, and what to label next."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deploy.bundle.bundle_files import set_decision
from deploy.errors import UserError
from deploy.files.images import read_image, read_mask, write_png
from deploy.loading import load
from distill import cli
from distill.config import DataConfig
from distill.data.datasets.classes_file import read_classes
from distill.data.datasets.image_folder import ImageFiles
from distill.labeling.files import remove_pair, write_pair
from distill.tasks.registry import open_splits
from tests.conftest import ROOT
from tests.deploy.tiny import make_bundle, make_image
from tests.deploy.two_classes import make_two_class_bundle, scene

COUNT = 20


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    make_bundle(tmp_path / "run" / "teacher.bundle", "rgb")
    return tmp_path / "run" / "teacher.bundle"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(COUNT):
        write_png(tmp_path / "photos" / f"p{number:02d}.png", make_image("rgb", number))
    return tmp_path / "photos"


def label(*arguments: object) -> int:
    return cli.main(["label", *map(str, arguments), "--backend", "onnxruntime"])


def rows_of(out: Path) -> list[dict[str, str]]:
    with open(out / "next.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_masks_are_the_predictions_and_training_reads_them(bundle, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert label(bundle.parent, photos, "--out", out) == 0  # of a run, its teacher
    model = load(bundle, "onnxruntime")
    for path in sorted(photos.iterdir()):
        assert (out / "images" / path.name).read_bytes() == path.read_bytes()
        labels = model(read_image(path)).labels
        np.testing.assert_array_equal(read_mask(out / "masks" / f"{path.stem}.png"), labels)
    splits = open_splits(DataConfig("folder", out, size=(32, 48), allow_absent_classes=True))
    assert splits.classes == model.classes
    assert splits.channels == ("R", "G", "B")
    assert len(splits.train) + len(splits.val) + len(splits.test) == COUNT
    assert f"{COUNT} masks to correct in {out}" in capsys.readouterr().out


def test_the_least_confident_images_come_first(bundle, photos, tmp_path):
    label(bundle, photos, "--out", tmp_path / "out")
    rows, model = rows_of(tmp_path / "out"), load(bundle, "onnxruntime")
    confidence = [float(row["confidence"]) for row in rows]
    assert confidence == sorted(confidence)
    assert [row["rank"] for row in rows] == [str(number + 1) for number in range(COUNT)]
    for row in (rows[0], rows[-1]):
        result = model(read_image(photos / row["image"]))
        assert float(row["confidence"]) == pytest.approx(result.probabilities.max(axis=0).mean(), abs=1e-5)
        assert row["mask"] == f"masks/{Path(row['image']).stem}.png"
        shares = [float(row[info.name]) for info in model.classes]
        assert shares == pytest.approx([(result.labels == number).mean() for number in range(3)], abs=1e-6)
        assert row["disagreement"] == ""


def test_unsure_pixels_become_void(bundle, photos, tmp_path):
    limit = 0.6
    label(bundle, photos, "--out", tmp_path / "out", "--min-confidence", limit)
    model, voids = load(bundle, "onnxruntime"), 0
    for row in rows_of(tmp_path / "out"):
        result = model(read_image(photos / row["image"]))
        unsure = result.probabilities.max(axis=0) < limit
        expected = np.where(unsure, 255, result.labels)
        np.testing.assert_array_equal(read_mask(tmp_path / "out" / row["mask"]), expected)
        assert float(row["void"]) == pytest.approx(unsure.mean(), abs=1e-6)
        voids += unsure.sum()
    assert voids


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Two radar bundles with other thresholds, and images with gaps."""
    one, other = (make_two_class_bundle(tmp_path / name / "student.bundle") for name in ("one", "other"))
    set_decision(other, 0.9, None)
    (tmp_path / "radar").mkdir()
    for number in range(4):
        image = scene(70 + number)[0]
        image[:, : 4 * number] = np.nan
        np.save(tmp_path / "radar" / f"{number}.npy", image)
    return one, other, tmp_path / "radar"


def test_where_two_networks_disagree_comes_first(two, tmp_path):
    one, other, radar = two
    label(one, radar, "--second", other, "--out", tmp_path / "out")
    rows, models = rows_of(tmp_path / "out"), [load(path, "onnxruntime") for path in (one, other)]
    found = [float(row["disagreement"]) for row in rows]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.02
    for row in rows:
        first, second = (model(np.load(radar / row["image"])) for model in models)
        share = (first.labels != second.labels)[first.valid].mean()
        assert float(row["disagreement"]) == pytest.approx(share, abs=1e-6)


def test_of_a_run_the_teacher_labels_the_student_is_second_and_each_stands_in(two, tmp_path):
    one, other, radar = two
    assert label(one.parent, radar, "--out", tmp_path / "student") == 0
    other.rename(one.parent / "teacher.bundle")
    assert label(one.parent, radar, "--second", one.parent, "--out", tmp_path / "out") == 0
    assert float(rows_of(tmp_path / "out")[0]["disagreement"]) > 0.02
    masks = [read_mask(tmp_path / out / "masks" / "0.png") for out in ("student", "out")]
    assert (masks[0] != masks[1]).any()


def test_pixels_without_data_are_void_and_do_not_count(two, tmp_path):
    label(two[1], two[2], "--out", tmp_path / "out")
    for row in rows_of(tmp_path / "out"):
        image = np.load(two[2] / row["image"])
        gaps = np.isnan(image).any(axis=2)
        mask = read_mask(tmp_path / "out" / row["mask"])
        assert ((mask == 255) == gaps).all()
        assert sum(float(row[info.name]) for info in load(two[1], "onnxruntime").classes) == pytest.approx(1)
        assert float(row["void"]) == 0


def test_only_the_first_masks_are_written_if_asked(bundle, photos, tmp_path):
    label(bundle, photos, "--out", tmp_path / "out", "--first", 3)
    rows = rows_of(tmp_path / "out")
    assert len(rows) == COUNT
    written = {Path(row["mask"]).stem for row in rows[:3]}
    assert {row["mask"] for row in rows[3:]} == {""}
    for kind in ("images", "masks"):
        assert {path.stem for path in (tmp_path / "out" / kind).iterdir()} == written


def test_channels_in_folders_of_their_own_become_one_file(tmp_path):
    make_bundle(tmp_path / "rgb.bundle", "rgb")
    image = make_image("rgb", 5)
    for number, name in enumerate("RGB"):
        write_png(tmp_path / "planes" / name / "x.png", image[..., number])
    label(tmp_path / "rgb.bundle", tmp_path / "planes", "--out", tmp_path / "out")
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "images" / "x.png"), image)
    settings = read_classes(tmp_path / "out" / "classes.json")
    assert settings is not None
    assert settings.channels == ("R", "G", "B")


def test_images_that_cannot_be_read_are_named_and_the_others_labeled(bundle, photos, tmp_path, capsys):
    (photos / "p03.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    write_png(photos / "p04.png", np.zeros((9, 9), np.uint8))
    assert label(bundle, photos, "--out", tmp_path / "out") == 1
    printed = capsys.readouterr()
    errors = printed.err.splitlines()
    assert len([line for line in errors if line.startswith("error: ")]) == 2
    assert any("p03.png" in line for line in errors)
    assert any("p04.png: " in line and "channel" in line for line in errors)
    assert f"{COUNT - 2} of {COUNT} images labeled" in printed.out
    assert len(rows_of(tmp_path / "out")) == COUNT - 2


class TestMistakes:
    def test_corrected_masks_are_never_replaced(self, bundle, photos, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.png").touch()
        with pytest.raises(UserError, match=r"--out .*out: exists, and corrected masks are never replaced"):
            label(bundle, photos, "--out", tmp_path / "out")
        assert (tmp_path / "out" / "mine.png").exists()

    def test_an_empty_folder(self, bundle, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(UserError, match="empty: holds no image"):
            label(bundle, tmp_path / "empty", "--out", tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_no_image_can_be_read(self, bundle, tmp_path):
        write_png(tmp_path / "gray" / "1.png", np.zeros((9, 9), np.uint8))
        with pytest.raises(UserError, match="gray: none of its images could be labeled"):
            label(bundle, tmp_path / "gray", "--out", tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_a_second_network_of_other_classes(self, bundle, two, photos, tmp_path):
        with pytest.raises(UserError, match=r"--second .* has the classes .*; only networks of the same"):
            label(bundle, photos, "--second", two[0], "--out", tmp_path / "out")

    def test_a_second_network_that_is_the_first(self, two, tmp_path):
        with pytest.raises(UserError, match=r"--second .*: is the same network as .*; give another"):
            label(two[0].parent, two[2], "--second", two[0], "--out", tmp_path / "out")

    @pytest.mark.parametrize(
        ("option", "words"),
        [
            (("--min-confidence", 1), "--min-confidence 1: must be at least 0 and below 1"),
            (("--first", -1), "--first -1: must be 0 or more"),
        ],
    )
    def test_options_out_of_range(self, bundle, photos, tmp_path, option, words):
        with pytest.raises(UserError, match=words):
            label(bundle, photos, "--out", tmp_path / "out", *option)

    def test_no_bundle(self, photos, tmp_path):
        with pytest.raises(UserError, match="photos"):
            label(photos, photos, "--out", tmp_path / "out")


def test_it_needs_no_torch(bundle, photos, tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None; from distill import cli;"
        f"cli.main(['label', {str(bundle)!r}, {str(photos)!r}, '--out', {str(tmp_path / 'out')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "next.csv").is_file()


def test_only_the_images_that_are_not_chosen_go(tmp_path):
    """Names that begin alike, and names that look like patterns."""
    stems = ("scene", "scene.1", "img[1]")
    for stem in stems:
        write_png(tmp_path / "photos" / f"{stem}.png", make_image("rgb"))
        image = ImageFiles(f"{stem}.png", (tmp_path / "photos" / f"{stem}.png",))
        write_pair(tmp_path / "out", stem, image, np.zeros((32, 48), np.uint8))
    for stem in ("scene", "img[1]"):
        remove_pair(tmp_path / "out", stem)
    for kind in ("images", "masks"):
        assert [path.name for path in (tmp_path / "out" / kind).iterdir()] == ["scene.1.png"]
