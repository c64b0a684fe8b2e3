"""Depth images from files."""

import numpy as np
import pytest

from deploy.errors import UserError
from deploy.files.images import write_png
from distill.data.grasp.files import read_depth
from tests.distill.data.grasp.grasp_files import write_tiff


def test_depth_files(tmp_path):
    write_tiff(tmp_path / "d.tiff", np.array([[0.5, 0, np.nan, -1, np.inf]]))
    assert np.isnan(read_depth(tmp_path / "d.tiff")).tolist() == [[False, True, True, True, True]]
    write_tiff(tmp_path / "mm.tiff", np.full((8, 8), 700))
    with pytest.warns(RuntimeWarning, match="millimeters"):
        read_depth(tmp_path / "mm.tiff")
    write_png(tmp_path / "rgb.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UserError, match=r"rgb\.png: holds 3 channels, should hold depth alone"):
        read_depth(tmp_path / "rgb.png")
