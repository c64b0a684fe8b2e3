"""Where files lie and how long they are: tests mirror the packages; files and functions are short."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from statistics import median

import pytest

from tests.conftest import ROOT

PACKAGES = sorted(path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests")
TESTS = ROOT / "tests"
MODULES = [path for package in PACKAGES for path in package.rglob("*.py") if path.stem != "__init__"]
"""The modules of the packages."""
TEST_FILES = list(TESTS.rglob("test_*.py"))
SOURCES = [path for folder in (*PACKAGES, TESTS, ROOT / "examples") for path in folder.rglob("*.py")]
"""Everything, tests and examples included."""

MAX_FILE, MAX_FUNCTION = 300, 50
"""Most lines that one may have."""
MEDIAN_FILE, MEDIAN_FUNCTION = 150, 8


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def mirrored(folder: Path) -> Path:
    """The folder of code that a folder of tests is for."""
    return ROOT / folder.relative_to(TESTS)


def test_each_folder_of_tests_is_for_a_folder_of_code():
    folders = sorted({path.parent for path in TEST_FILES} - {TESTS, TESTS / "chaos"})
    assert [shown(folder) for folder in folders if not list(mirrored(folder).glob("*.py"))] == []


def test_each_package_folder_with_code_has_tests():
    tested = {mirrored(path.parent) for path in TEST_FILES}
    tested |= {mirrored(path.parent) / path.stem.removeprefix("test_") for path in TEST_FILES}
    assert [shown(folder) for folder in sorted({path.parent for path in MODULES} - tested)] == []


def test_the_tests_of_a_module_lie_in_its_folder():
    """Where only one module of a package has the name of a test file, both are in the same place."""
    misplaced = []
    for file in TEST_FILES:
        place = mirrored(file.with_name(file.name.removeprefix("test_")))
        package = ROOT / place.relative_to(ROOT).parts[0]
        namesakes = [path for path in MODULES if path.name == place.name and package in path.parents]
        if len(namesakes) == 1 and namesakes != [place]:
            misplaced.append(f"{shown(file)} tests {shown(namesakes[0])}")
    assert misplaced == []


def functions() -> Iterator[tuple[str, int]]:
    """Each function by place and name, and its number of lines from `def` on."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield f"{shown(path)}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


def test_files_are_short():
    lines = {shown(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert {path: count for path, count in lines.items() if count > MAX_FILE} == {}
    assert median(lines.values()) <= MEDIAN_FILE


def test_functions_are_short():
    lines = dict(functions())
    assert {name: count for name, count in lines.items() if count > MAX_FUNCTION} == {}
    assert median(lines.values()) <= MEDIAN_FUNCTION


def test_pytest_leaves_no_folder_of_tests_out(pytestconfig: pytest.Config):
    """Its own list of folders to leave out has `build`, the name of one of our packages."""
    patterns = pytestconfig.getini("norecursedirs")
    names = {part for path in TEST_FILES for part in path.relative_to(ROOT).parent.parts}
    assert [name for name in sorted(names) for pattern in patterns if fnmatch(name, pattern)] == []


def test_ruff_leaves_no_file_out():
    """Its own list of folders to leave out has `build`, too."""
    command = [sys.executable, "-m", "ruff", "check", "--show-files", "."]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120).stdout
    found = {Path(line).resolve() for line in listed.splitlines()}
    assert [shown(path) for path in SOURCES if path.resolve() not in found] == []


def test_one_module_makes_the_core_of_openvino():
    """The signal stack of a thread is lost where one of two cores is destroyed: a crash that nothing reports."""
    makers = [shown(path) for path in SOURCES if "Core()" in path.read_text() and path != Path(__file__)]
    assert makers == ["deploy/backends/openvino_cpu.py"]
