"""`edgedistill predict --resume` leaves out what is done."""

import numpy as np
import pytest

from deploy.cli import main
from deploy.errors import UserError
from deploy.files.images import write_png
from deploy.predict.record import NAME


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

    def test_other_options_are_refused(self, bundle, images, tmp_path):
        self.predict(bundle, images, tmp_path)
        with pytest.raises(UserError, match="was made with another --save; choose another --out"):
            self.predict(bundle, images, tmp_path, "--resume", "--save", "json")
