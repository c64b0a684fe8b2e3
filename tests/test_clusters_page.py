"""The commands of docs/clusters.md work, one after another."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

from tests.conftest import ROOT
from tests.deploy.cluster.runs import contents
from tests.deploy.raster.mosaics import cut_up
from tests.deploy.tiny import make_bundle, make_image

PAGE = (ROOT / "docs" / "clusters.md").read_text()


def command(folder: Path, name: str, module: str) -> None:
    """A command as an installation would have it."""
    (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
    (folder / name).chmod(0o755)


@pytest.mark.slow
def test_commands(tmp_path: Path):
    make_bundle(tmp_path / "student.bundle", resize="tile")
    image = make_image(size=(200, 300))
    halves = (slice(0, 150), slice(150, 300))
    cut_up(tmp_path / "scenes", image, [slice(0, 200)], halves)
    cut_up(tmp_path / "images", image, [slice(0, 200)], halves)
    (tmp_path / "bin").mkdir()
    command(tmp_path / "bin", "edgedistill", "edgedistill")
    command(tmp_path / "bin", "dask", "dask")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
    assert len(lines) == 7
    # At once: a worker whose scheduler ends with it may wait for that forever, and keep the pipes open.
    script = "\n".join(["set -e", "trap 'kill -9 $(jobs -p)' EXIT", *lines])
    environment = {
        "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
    }
    result = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert "2 of 2 images predicted" in result.stdout
    assert contents(tmp_path / "again") == contents(tmp_path / "predictions")
    assert len(contents(tmp_path / "labels")) == 2
    assert (tmp_path / "whole.tif").exists()
    [program] = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True, timeout=120)
    with (
        rasterio.open(tmp_path / "labels.tif") as lazy,
        rasterio.open(tmp_path / "labels" / "part-0-0.tif") as file,
    ):
        np.testing.assert_array_equal(lazy.read(), file.read())
        assert (lazy.crs, lazy.transform, lazy.nodata) == (file.crs, file.transform, file.nodata)
