"""What tests of runs share."""

import json

import numpy as np
import pytest

from deploy.files.images import write_png
from tests.deploy.tiny import make_bundle


@pytest.fixture
def bundle(tmp_path):
    """A bundle of another run, with the classes of `smoke` in another order."""
    make_bundle(tmp_path / "secret-teacher", "sar")
    return tmp_path / "secret-teacher"


@pytest.fixture
def photos(tmp_path):
    """Arguments of a run on photos of three classes."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(4):
            folder = tmp_path / "data" / split
            write_png(folder / "images" / f"{number}.png", rng.integers(0, 255, (48, 48, 3)).astype(np.uint8))
            write_png(
                folder / "masks" / f"{number}.png", (np.indices((48, 48)).sum(0) // 16 % 3).astype(np.uint8)
            )
    classes = {"classes": ["vehicle", "road", "person"]}
    (tmp_path / "data" / "classes.json").write_text(json.dumps(classes))
    return ("--data.name=folder", f"--data.root={tmp_path / 'data'}", "--int8.no-enabled")
