"""Bundles, and images for them, that the tests of `deploy` share."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy.files.images import write_png
from tests.deploy.precisions import make_precisions
from tests.deploy.tiny import make_bundle, make_image

# Compare with the training packages, which devices and Python 3.10 lack.
collect_ignore = [] if find_spec("torch") else ["lint/test_own_models.py", "tasks/grasp/test_model.py"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "bundle"
    make_bundle(folder)
    return folder


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    red = np.zeros((40, 60, 3), np.uint8)
    red[..., 0] = 255
    write_png(folder / "red.png", red)
    Image.fromarray(red[..., ::-1]).save(folder / "red.bmp")  # blue
    write_png(folder / "noise.png", make_image(size=(20, 30)))
    return folder


@pytest.fixture(scope="module")
def int8_bundle(tmp_path_factory) -> Path:
    """A bundle whose INT8 model labels green as red."""
    return make_precisions(tmp_path_factory.mktemp("int8_bundle") / "bundle", "int8")
