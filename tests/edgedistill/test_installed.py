"""Wheel and sdist, installed in a fresh environment, and used beside folders of the user named like our packages."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from deploy.files.images import write_png
from tests.conftest import ROOT
from tests.deploy.tiny import make_bundle, make_image

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def call(command: list[str | Path], cwd: Path) -> str:
    """The output of a command that must succeed."""
    result = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module", params=["wheel", "sdist"])
def scripts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin` of a fresh environment with edgedistill in it; its dependencies are those of this one."""
    pytest.importorskip("hatchling", reason="hatchling is not installed here (pip install -e '.[dev]')")
    folder = tmp_path_factory.mktemp(request.param)
    call([sys.executable, "-m", "hatchling", "build", "-t", request.param, "-d", folder / "dist"], ROOT)
    [package] = (folder / "dist").iterdir()
    call([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], folder)
    python = folder / "venv" / "bin" / "python"
    installed = Path(
        call([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip()
    )
    # the build backend and the dependencies; a .pth file does not follow those that it leads to, so ours stays out
    (installed / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--python",
        python,
        "install",
        "--no-index",
    ]
    call([*pip, "--no-deps", "--no-build-isolation", "--ignore-installed", package], folder)
    return python.parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with a bundle, an image, and packages of the user's own."""
    for name in ("deploy", "distill"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('shadowed')")
    make_bundle(tmp_path / "tiny.bundle")
    write_png(tmp_path / "photo.png", make_image())
    return tmp_path


def test_commands_and_package_of_an_installation(scripts: Path, folder: Path):
    command = scripts / "edgedistill"
    assert call([command, "--version"], folder).startswith("edgedistill ")
    assert "quick-grasp" in call([command, "presets"], folder)
    assert "tiny-rgb: segmentation" in call([command, "info", "tiny.bundle"], folder)
    assert "files match their checksums" in call([command, "verify", "tiny.bundle"], folder)
    call([command, "predict", "tiny.bundle", "photo.png", "--out", "predictions"], folder)
    assert list((folder / "predictions").glob("photo*"))

    python = scripts / "python"
    assert "tiny-rgb: segmentation" in call([python, "-m", "edgedistill", "info", "tiny.bundle"], folder)
    code = "import edgedistill as e; print(e.load('tiny.bundle').input.height, e.preset('smoke').out, e.__file__)"
    height, out, file = call([python, "-c", code], folder).split()
    assert (height, out) == ("32", "runs/smoke")
    assert Path(file).is_relative_to(scripts.parent)


def test_benchmarks_and_tests_are_not_installed(scripts: Path, tmp_path: Path):
    names = ("benchmarks", "examples", "tests")
    code = f"from importlib.util import find_spec; print([name for name in {names} if find_spec(name)])"
    assert call([scripts / "python", "-c", code], tmp_path) == "[]\n"
