"""labeled_data.py: a device reads exactly what was written for it, and damage is named."""

import numpy as np
import pytest

from deploy.errors import UserError
from deploy.evaluation.labeled_data import (
    CalibrationImages,
    DataInfo,
    network_input,
    read_info,
    read_labeled,
    write_image,
    write_info,
    write_labeled,
)
from deploy.files.images import read_image, write_png
from tests.deploy.tiny import SPECS, make_image, make_manifest


def samples(kind: str, count: int = 3):
    rng = np.random.default_rng(0)
    for index in range(count):
        image = make_image(kind, index, (40, 56))
        label = rng.integers(0, 2, (40, 56)).astype(np.uint8)
        valid = rng.random((40, 56)) < 0.9
        if kind == "sar":
            image[~valid] = np.nan
        yield f"scene/{index}", image, label, valid


@pytest.mark.parametrize("kind", ["rgb", "sar"])
def test_samples_come_back_as_they_were(tmp_path, kind):
    assert write_labeled(tmp_path, samples(kind)) == 3

    read = list(read_labeled(tmp_path, num_classes=2))

    assert [name for name, *_ in read] == ["00000-0", "00001-1", "00002-2"]
    for (_, image, label, valid), (_, image2, label2, valid2) in zip(samples(kind), read, strict=True):
        np.testing.assert_array_equal(image, image2)
        np.testing.assert_array_equal(valid, valid2)
        np.testing.assert_array_equal(label[valid], label2[valid])


def test_pixels_without_data_do_not_count_although_they_have_a_label(tmp_path):
    """Masks of whole frames over a strip of radar, as people draw them."""
    image, label = make_image("sar", 0, (40, 56)), np.zeros((40, 56), np.uint8)
    label[:, 30:] = 1
    image[:, :20] = np.nan
    (tmp_path / "images").mkdir()
    np.save(tmp_path / "images" / "a.npy", image)
    write_png(tmp_path / "masks" / "a.png", label)
    ((_, _, _, valid),) = read_labeled(tmp_path, 2, spec=SPECS["sar"])
    assert valid.tolist() == (np.indices((40, 56))[1] >= 20).tolist()


class TestOfASingleClass:
    """Masks of 0 and 255, of which 255 was meant as a class, would score 100 %."""

    def folder(self, tmp_path, values):
        for number in range(2):
            write_png(tmp_path / "images" / f"{number}.png", make_image("rgb", number))
            write_png(tmp_path / "masks" / f"{number}.png", np.resize(values, (32, 48)).astype(np.uint8))
        return tmp_path

    def test_it_is_refused(self, tmp_path):
        with pytest.raises(
            UserError,
            match=r"255 is void; convert the masks .edgedistill masks .* NEW_FOLDER --map 0=0 --map 255=1",
        ):
            list(read_labeled(self.folder(tmp_path, [0, 255]), 2))

    def test_colors_are_no_ids(self, tmp_path):
        data = tmp_path / "data"
        self.folder(data / "test", [0])
        colors = np.zeros((32, 48, 3), np.uint8)
        colors[:9] = 255, 0, 0
        write_png(data / "test" / "masks" / "0.png", colors)
        with pytest.raises(UserError, match=r"0\.png: the mask holds colors; .*--map ff0000=1") as refused:
            list(read_labeled(data / "test", 2))
        assert f"edgedistill masks {data} NEW_FOLDER" in str(refused.value)
        assert str(data / "classes.json") in str(refused.value)

    @pytest.mark.parametrize("values", [[0], [0, 1], [0, 1, 255]])
    def test_others_are_not(self, tmp_path, values):
        assert len(list(read_labeled(self.folder(tmp_path, values), 2))) == 2

    def test_what_a_run_has_written_means_what_it_says(self, tmp_path):
        write_info(tmp_path, DataInfo("some", "test", 2))
        assert len(list(read_labeled(self.folder(tmp_path / "test", [0, 255]), 2))) == 2


class TestDamage:
    @pytest.fixture
    def folder(self, tmp_path):
        write_labeled(tmp_path, samples("rgb"))
        return tmp_path

    def refused(self, folder) -> str:
        with pytest.raises(UserError) as caught:
            list(read_labeled(folder, num_classes=2))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_missing_mask(self, folder):
        (folder / "masks" / "00001-1.png").unlink()
        assert "00001-1.png: is missing; 00001-1.png needs a mask" in self.refused(folder)

    def test_missing_folder(self, tmp_path):
        assert "images: no such folder" in self.refused(tmp_path / "nowhere")

    def test_mask_of_another_size(self, folder):
        write_png(folder / "masks" / "00000-0.png", np.zeros((8, 8), np.uint8))
        assert "00000-0.png: has shape (8, 8), its image (40, 56)" in self.refused(folder)

    def test_id_that_is_no_class(self, folder):
        write_png(folder / "masks" / "00002-2.png", np.full((40, 56), 7, np.uint8))
        assert "00002-2.png: has id 7, but the bundle has 2 classes" in self.refused(folder)

    def test_id_below_0(self, folder):
        (folder / "masks" / "00002-2.png").unlink()
        np.save(folder / "masks" / "00002-2.npy", np.full((40, 56), -1, np.int16))
        assert "00002-2.npy: has id -1, but the bundle has 2 classes" in self.refused(folder)

    def test_image_that_the_bundle_does_not_take(self, folder):
        with pytest.raises(UserError, match=r"00000-0\.png: image has 3 channels, the bundle wants 2"):
            list(read_labeled(folder, num_classes=2, spec=SPECS["sar"]))


class TestCalibration:
    def test_is_what_the_runtime_would_feed(self, tmp_path):
        image = make_image("sar", 0, (64, 96))
        image[:10] = np.nan
        write_image(tmp_path / "a", image)
        images = CalibrationImages(tmp_path, SPECS["sar"])

        (first,), (again,) = list(images), list(images)  # any number of times

        pixels, valid = first
        assert (pixels.shape, pixels.dtype, valid.shape) == ((1, 2, 32, 48), np.float32, (32, 48))
        np.testing.assert_array_equal(pixels, network_input(image, SPECS["sar"])[0])
        np.testing.assert_array_equal(pixels, again[0])
        assert not valid[:5].any()
        assert valid[5:].all()
        assert np.isfinite(pixels).all()

    def test_takes_the_middle_where_the_bundle_tiles(self):
        spec = make_manifest("rgb", resize="tile").input
        image = make_image("rgb", 0, (64, 96))
        pixels, valid = network_input(image, spec)
        np.testing.assert_array_equal(pixels[0], image[16:48, 24:72])
        assert valid.shape == (32, 48)

    def test_a_wrong_image_is_named(self, tmp_path):
        write_image(tmp_path / "gray", np.zeros((32, 48, 1), np.uint8))
        with pytest.raises(UserError, match=r"gray\.png: image has 1 channel, the bundle wants 3"):
            list(CalibrationImages(tmp_path, SPECS["rgb"]))

    def test_a_damaged_image_is_named_once(self, tmp_path):
        (tmp_path / "bad.png").write_bytes(b"")
        with pytest.raises(UserError, match="corrupt") as caught:
            list(CalibrationImages(tmp_path, SPECS["rgb"]))
        assert str(caught.value).count("bad.png") == 1


class TestInfo:
    def test_round_trip(self, tmp_path):
        write_info(tmp_path, DataInfo("camvid", "test", 233))
        assert read_info(tmp_path) == DataInfo("camvid", "test", 233)

    def test_without_a_file_the_folder_names_the_data(self, tmp_path):
        (tmp_path / "street").mkdir()
        assert read_info(tmp_path / "street").dataset == "street"

    @pytest.mark.parametrize("content", [b"{", b'{"dataset": "\xff"}'])
    def test_damage_is_named(self, tmp_path, content):
        (tmp_path / "data.json").write_bytes(content)
        with pytest.raises(UserError, match=r"data\.json: is damaged"):
            read_info(tmp_path)


@pytest.mark.parametrize("size", [(24, 24), (1, 1), (1, 40), (40, 1)])
def test_what_a_run_writes_keeps_its_axes(tmp_path, size):
    """More bands than rows: of a bare array the wrong axis would be taken for the channels."""
    image = np.random.default_rng(0).normal(size=(*size, 30)).astype(np.float32)
    label, valid = np.ones(size, np.uint8), np.ones(size, bool)
    write_labeled(tmp_path, [("a", image, label, valid)])
    [(_, again, _, _)] = read_labeled(tmp_path, 2)
    np.testing.assert_array_equal(again, image)
    np.testing.assert_array_equal(read_image(next((tmp_path / "images").iterdir())), image)
