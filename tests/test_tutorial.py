"""The commands of docs/tutorial.md work, one after another, on a small folder and with few steps."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
SMALL = "--data.size 64 64 --augment.crop 64 64 --student.arch edge-nano --no-teacher --precision fp32"
FEW = "--student-train.steps 6 --student-train.eval-every 0"
LOOSE = "--int8.max-drop 1 --int8.min-agreement 0"
"""After six steps INT8 may flip any label."""


def photos(folder: Path) -> None:
    """Images with a bright square, and masks of 0 and 255."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    random = np.random.default_rng(0)
    for index in range(32):
        mask = np.zeros((64, 64), np.uint8)
        row, column = random.integers(8, 40, 2)
        mask[row : row + 16, column : column + 16] = 255
        image = random.integers(0, 100, (64, 64, 3)) + mask[..., None] // 2
        Image.fromarray(image.astype(np.uint8)).save(folder / "images" / f"{index:04}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{index:04}.png")


def installed(folder: Path) -> Path:
    """A folder with commands as an installation would have them; `run` takes few steps."""
    folder.mkdir()
    command = f'exec "{sys.executable}" -m edgedistill "$@"'
    lines = ["#!/bin/sh", f'[ "$1" != run ] || set -- "$@" {SMALL} {FEW} {LOOSE}', command]
    (folder / "edgedistill").write_text("\n".join(lines) + "\n")
    (folder / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for file in folder.iterdir():
        file.chmod(0o755)
    return folder


def endings() -> list[str]:
    """What the Raspberry Pi runs once edgedistill is installed."""
    return re.findall(r"^    ~/edge/bin/(edgedistill [^#\n]*)", PAGE.split("## Ending B")[0], re.MULTILINE)


@pytest.mark.slow
def test_commands(tmp_path: Path):
    photos(tmp_path / "photos")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
    here = [line for line in lines if "hatchling" not in line]
    assert (len(lines), len(here), len(endings())) == (8, 7, 4)
    device = "cp -r runs/cracks/student.bundle . && cp photos/images/0001.png photo.jpg"
    script = "\n".join(["set -e", *here, device, *endings()])
    environment = {
        "PATH": f"{installed(tmp_path / 'bin')}:/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    result = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "runs/cracks/report.html").exists()
    assert (tmp_path / "runs/cracks/student.bundle/model.int8-cpu.onnx").exists()
    assert len(list((tmp_path / "predictions").glob("*_overlay.png"))) == 32 + 1
    assert "crack" in (tmp_path / "evaluation" / "per_class.csv").read_text()
