"""The project as a whole: layers, dependencies of the device part, version, console command, what the wheel holds."""

import ast
import importlib.metadata
import re
import runpy
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomllib

import edgedistill
from tests.conftest import ROOT, reason_to_skip, run_python

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests")
SHIPPED = sorted(set(PACKAGES) - {"benchmarks"})
# Import names of dependencies that differ from the name of the package.
IMPORT_NAMES = {"opencv-python-headless": "cv2", "pillow": "PIL"}


def import_names(requirements: list[str]) -> list[str]:
    """The names by which these dependencies are imported."""
    names = [re.split(r"[^\w-]", requirement)[0] for requirement in requirements]
    return [IMPORT_NAMES.get(name, name) for name in names]


def imported_at_module_level(file: Path) -> Iterator[str]:
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def test_deploy_imports_only_base_dependencies():
    names = import_names(PROJECT["project"]["dependencies"])
    allowed = {"deploy", *sys.stdlib_module_names, *names}
    optional = {
        ROOT / "deploy" / name for name in ("quantize", "lint", "serve")
    }  # imported when they are asked for
    files = [file for file in (ROOT / "deploy").rglob("*.py") if file.parent not in optional]

    imported = {name: file for file in files for name in imported_at_module_level(file)}

    assert {name: str(file) for name, file in imported.items() if name not in allowed} == {}
    assert allowed & set(imported) >= {"numpy", "msgspec"}  # the search found something


def test_import_deploy_is_light():
    heavy = [
        "torch",
        "onnx",
        "onnxruntime",
        "PIL",
        "cv2",
        "tensorrt",
        "openvino",
        "distill",
        "teacher",
        "student",
    ]
    result = run_python(f"import sys, deploy; print([name for name in {heavy} if name in sys.modules])")
    assert (result.stdout.strip(), result.stderr) == ("[]", "")


def test_console_command_needs_only_the_base_install():
    [target] = PROJECT["project"]["scripts"].values()
    module, function = target.split(":")
    extras = import_names(PROJECT["project"]["optional-dependencies"]["train"])
    result = run_python(
        f"import sys; sys.modules.update(dict.fromkeys({extras}))\n"  # None there makes an import fail
        f"from {module} import {function}; print(callable({function}))"
    )
    assert (result.stdout.strip(), result.stderr) == ("True", ""), result.stderr


def test_versions_agree():
    version = PROJECT["project"]["version"]
    headings = re.findall(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == version == edgedistill.__version__
    try:
        installed = importlib.metadata.version("edgedistill")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("edgedistill is not installed here (pip install -e .)")
    assert installed == version


def test_the_oldest_python_is_one_everywhere():
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
    versions = [text.split(" :: ")[-1] for text in PROJECT["project"]["classifiers"] if "3." in text]
    assert versions[0] == oldest == PROJECT["tool"]["basedpyright"]["pythonVersion"]
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"


def test_extras_are_resolved_with_all_that_they_ask_for():
    extras = runpy.run_path(str(ROOT / ".ci" / "extras.py"))
    every = {name for group in extras["GROUPS"].values() for name in group} | set(extras["NOT_RESOLVED"])
    assert every == set(PROJECT["project"]["optional-dependencies"])
    asked = extras["requirements"](("tensorrt-cu12",))
    assert {"pillow>=11.0", "cuda-bindings>=12.6,<13", "tensorrt-cu12-bindings>=10.3"} <= set(asked)


def test_wheel_holds_every_module_and_no_tests(tmp_path: Path):
    pytest.importorskip("hatchling", reason="hatchling is not installed here (pip install -e '.[dev]')")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    [wheel] = tmp_path.glob("*.whl")

    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
        entry_points = archive.read(
            next(n for n in archive.namelist() if n.endswith("entry_points.txt"))
        ).decode()

    modules = {path.relative_to(ROOT).as_posix() for name in SHIPPED for path in (ROOT / name).rglob("*.py")}
    assert {name for name in shipped if name.endswith(".py")} == modules
    assert {name.split("/")[0] for name in shipped} == set(SHIPPED)
    assert "edgedistill/py.typed" in shipped
    assert "edgedistill = edgedistill.__main__:entry" in entry_points


def test_make_fast_has_tests_of_every_package():
    listed = re.search(
        r"^FAST := \$\(addprefix tests/,(.*?)\)$", (ROOT / "Makefile").read_text(), re.M | re.S
    )
    assert listed is not None
    paths = listed[1].replace("\\", " ").split()
    assert [path for path in paths if not (ROOT / "tests" / path).exists()] == []
    assert set(PACKAGES) <= {path.split("/")[0] for path in paths}


def test_real_data_are_skipped_with_the_reason(tmp_path: Path):
    (tmp_path / "camvid").mkdir()
    assert reason_to_skip(None, ()) == "EDGEDISTILL_DATA is not set"
    assert reason_to_skip(str(tmp_path), ("camvid",)) is None
    assert str(tmp_path / "ombria") in str(reason_to_skip(str(tmp_path), ("camvid", "ombria")))
    assert str(tmp_path / "none") in str(reason_to_skip(str(tmp_path / "none"), ()))
