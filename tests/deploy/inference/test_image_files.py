"""Image files for a network: pixels without data of uint8 get the channel means, and stay out of scores."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from deploy.errors import UserError
from deploy.evaluation.labeled_data import CalibrationImages, read_labeled
from deploy.files.images import write_png
from deploy.inference.image_files import read_input
from tests.deploy.tiny import SPECS, make_image

HOLE = np.zeros((32, 48), bool)
HOLE[:10] = True


@pytest.fixture
def folder(tmp_path):
    """An image with alpha, and its mask."""
    (tmp_path / "images").mkdir()
    alpha = np.where(HOLE, 0, 255).astype(np.uint8)
    Image.fromarray(np.dstack([make_image(), alpha])).save(tmp_path / "images" / "a.tif")
    write_png(tmp_path / "masks" / "a.png", np.ones((32, 48), np.uint8))
    return tmp_path


def test_a_network_of_bytes(folder):
    image, known = read_input(folder / "images" / "a.tif", SPECS["rgb"])
    np.testing.assert_array_equal(known, ~HOLE)
    np.testing.assert_array_equal(image, np.where(HOLE[..., None], np.uint8((120, 110, 100)), make_image()))
    [(_, _, _, valid)] = read_labeled(folder, 3, spec=SPECS["rgb"])
    np.testing.assert_array_equal(valid, ~HOLE)
    [(pixels, valid)] = CalibrationImages(folder / "images", SPECS["rgb"])
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(valid, ~HOLE)


def test_other_channels_are_refused(folder):
    with pytest.raises(UserError, match=r"a\.tif: image has 3 channels, the bundle wants 2 \(VV, VH\)"):
        read_input(folder / "images" / "a.tif", SPECS["sar"])


@pytest.mark.parametrize("names", [("VV", "VH"), ("VH", "VV"), ("first", "second")])
def test_bands_named_like_the_channels_are_in_their_order(tmp_path, names):
    """Other names are free text."""
    items = "".join(
        f'<Item name="DESCRIPTION" sample="{i}" role="description">{name}</Item>'
        for i, name in enumerate(names)
    )
    tag = (42112, "s", 0, f"<GDALMetadata>{items}</GDALMetadata>", True)
    image = make_image("sar").transpose(2, 0, 1)
    tifffile.imwrite(
        tmp_path / "a.tif", image, photometric="minisblack", planarconfig="separate", extratags=[tag]
    )
    if names == ("VH", "VV"):
        with pytest.raises(UserError, match=r"a\.tif: its bands are VH, VV in this order, wanted are VV, VH"):
            read_input(tmp_path / "a.tif", SPECS["sar"])
    else:
        np.testing.assert_array_equal(read_input(tmp_path / "a.tif", SPECS["sar"])[0], make_image("sar"))
