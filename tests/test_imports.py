"""The import contracts hold, and each of them notices what it forbids, inside functions too."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

from tests.conftest import ROOT

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
PACKAGES = ("benchmarks", "deploy", "distill", "edgedistill", "student", "teacher")
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"


def check_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LINT]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture
def skeleton(tmp_path: Path) -> Path:
    """The project with all of its modules, every one empty."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        for module in (ROOT / package).rglob("*.py"):
            empty = tmp_path / module.relative_to(ROOT)
            empty.parent.mkdir(parents=True, exist_ok=True)
            empty.touch()
    return tmp_path


def test_all_contracts_hold():
    result = check_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(CONTRACTS)} kept, 0 broken" in result.stdout


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("teacher/pspnet.py", "import deploy", ""),
        ("deploy/host.py", "import teacher", "Each package imports only what is below it"),
        ("teacher/pspnet.py", "import student", "Each package imports only what is below it"),
        ("student/zoo.py", "import distill", "Each package imports only what is below it"),
        ("distill/cli.py", "import edgedistill", "Each package imports only what is below it"),
        ("edgedistill/__init__.py", "import benchmarks", "Each package imports only what is below it"),
        ("deploy/tasks/registry.py", "import deploy.inference.tiling", ""),
        ("deploy/inference/tiling.py", "import deploy.tasks.registry", "Each folder of deploy"),
        ("deploy/files/tiff.py", "import deploy.raster.geo", "Each folder of deploy"),
        ("deploy/backends/open.py", "import deploy.inference.call", "Each folder of deploy"),
        ("deploy/raster/geo.py", "import deploy.analysis.curves", "Each folder of deploy"),
        ("deploy/novelty.py", "", "Each folder of deploy"),
        ("distill/pipeline/stages.py", "import distill.training.loop", ""),
        ("distill/training/loop.py", "import distill.pipeline.stages", "Each folder of distill"),
        ("distill/data/stats.py", "import distill.losses.registry", "Each folder of distill"),
        ("distill/tasks/grasp.py", "import distill.export.parity", "Each folder of distill"),
        ("distill/export/parity.py", "import distill.distillation.build", "Each folder of distill"),
        ("distill/novelty.py", "", "Each folder of distill"),
        ("deploy/host.py", "import torch", "deploy runs without the training stack"),
        ("deploy/host.py", "import cv2", "deploy runs without the training stack"),
        ("deploy/stream/capture.py", "import cv2", ""),
        ("deploy/backends/open.py", "import onnx.helper", "deploy touches ONNX files"),
        ("deploy/quantize/qdq.py", "import onnx.helper", ""),
        ("deploy/backends/open.py", "import tensorrt", ""),
        ("deploy/host.py", "import tensorrt", "deploy touches device runtimes"),
        ("deploy/raster/geo.py", "import rasterio", ""),
        ("deploy/files/tiff.py", "import rasterio", ""),
        ("deploy/host.py", "import rasterio", "deploy touches device runtimes"),
    ],
)
def test_contracts_see_imports_inside_functions(skeleton: Path, file: str, line: str, broken: str):
    (skeleton / file).write_text(f"def f():\n    {line or 'pass'}\n")

    result = check_imports(skeleton)

    lines = " ".join(result.stdout.split())
    assert (result.returncode == 0) == (not broken), result.stdout + result.stderr
    if broken:
        [name] = [contract["name"] for contract in CONTRACTS if contract["name"].startswith(broken)]
        assert f"{name} BROKEN" in lines, result.stdout + result.stderr
        assert f"{len(CONTRACTS) - 1} kept, 1 broken" in lines


def test_a_cycle_between_modules_of_one_folder_is_found(skeleton: Path):
    (skeleton / "distill/losses/common.py").write_text("def f():\n    import distill.losses.expression\n")
    (skeleton / "distill/losses/expression.py").write_text("import distill.losses.common\n")

    result = check_imports(skeleton)

    assert "No import cycles BROKEN" in result.stdout, result.stdout + result.stderr
