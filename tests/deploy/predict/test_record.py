"""`edgedistill predict --resume` leaves out what is done."""

from contextlib import closing

import numpy as np
import pytest

from deploy.cli import main
from deploy.errors import UserError
from deploy.files.images import read_mask, write_png
from deploy.predict.record import NAME, Record
from tests.deploy.tiny import make_bundle


def solid(label: int) -> np.ndarray:
    """An image whose every pixel has this label."""
    image = np.zeros((32, 48, 3), np.uint8)
    image[..., label] = 255
    return image


class TestResume:
    def predict(self, bundle, images, tmp_path, *options) -> int:
        return main(["predict", str(bundle), str(images), "--out", str(tmp_path / "out"), *options])

    def test_done_images_are_left_out_unless_they_changed(self, bundle, images, tmp_path, capsys):
        self.predict(bundle, images, tmp_path)
        (tmp_path / "out" / "noise_mask.png").unlink()
        write_png(images / "red.png", np.zeros((40, 60, 3), np.uint8))
        capsys.readouterr()
        assert self.predict(bundle, images, tmp_path, "--resume") == 0
        printed = capsys.readouterr().out
        assert "1 of 3 images were done before" in printed
        assert "2 of 3 images predicted" in printed
        assert (tmp_path / "out" / "noise_mask.png").exists()

    def test_a_line_that_was_cut_is_predicted_again(self, bundle, images, tmp_path, capsys):
        self.predict(bundle, images, tmp_path)
        record = tmp_path / "out" / NAME
        record.write_bytes(record.read_bytes()[:-20])
        capsys.readouterr()
        self.predict(bundle, images, tmp_path, "--resume")
        assert "1 of 3 images predicted" in capsys.readouterr().out
        self.predict(bundle, images, tmp_path, "--resume")
        assert "3 of 3 images were done before" in capsys.readouterr().out

    def test_names_of_other_images_are_taken(self, tmp_path):
        """Else an image of another folder would replace a result, and both would count as done."""
        out, bundle = tmp_path / "out", tmp_path / "bundle"
        make_bundle(bundle)
        for label in (0, 1, 2):
            write_png(tmp_path / f"camera{label}" / "0001.png", solid(label))
        for label in (0, 1, 0, 2):
            self.predict(bundle, tmp_path / f"camera{label}", tmp_path, "--resume", "--save", "mask")
        files = sorted(out.glob("*.png"))
        assert [path.name for path in files] == ["0001___mask.png", "0001__mask.png", "0001_mask.png"]
        assert {int(read_mask(path)[0, 0]) for path in files} == {0, 1, 2}

    def test_a_longer_list_leaves_results_where_they_are(self, tmp_path, capsys):
        bundle, shots = tmp_path / "bundle", tmp_path / "shots"
        make_bundle(bundle)
        for label in (2, 1, 0):
            write_png(shots / f"camera{label}" / "0001.png", solid(label))
            self.predict(bundle, shots / "**" / "*.png", tmp_path, "--resume", "--save", "mask")
            assert f"1 of {3 - label} images predicted" in capsys.readouterr().out
        files = sorted((tmp_path / "out").glob("*.png"))
        assert sorted(int(read_mask(path)[0, 0]) for path in files) == [0, 1, 2]

    def test_an_image_whose_file_another_one_got_is_not_done(self, tmp_path):
        """Records of earlier versions have such images."""
        images = [tmp_path / "a.png", tmp_path / "b.png"]
        written = tmp_path / "out" / "a_mask.png"
        for path in (*images, written):
            write_png(path, solid(0))
        for resume in (False, True):
            with closing(Record(written.parent, {}, resume)) as record:
                if not resume:
                    for image in images:
                        record.add(image, "a", (written,))
                assert [record.has(image) for image in images] == [False, True]

    def test_other_options_are_refused(self, bundle, images, tmp_path):
        self.predict(bundle, images, tmp_path)
        with pytest.raises(UserError, match="was made with another --save; choose another --out"):
            self.predict(bundle, images, tmp_path, "--resume", "--save", "json")
