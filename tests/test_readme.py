"""The commands in the README work."""

import re
import runpy
import shlex
import shutil
import subprocess
import sys

import pytest

from distill.run import parse
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
SHELL = [line for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.splitlines()]
PYTHON = re.findall(r"```python\n(.*?)```", README, re.S)


def arguments_of(line: str) -> list[str]:
    """The line as this interpreter runs it, whether edgedistill is installed or not."""
    first, *rest = shlex.split(line)
    return [sys.executable, *(["-m", "edgedistill"] if first == "edgedistill" else []), *rest]


def test_commands_are_spelled_alike():
    allowed = {"edgedistill", "python benchmarks/latency.py"}
    assert {
        line.split()[0] if line.startswith("edgedistill") else " ".join(line.split()[:2]) for line in SHELL
    } == allowed


def test_every_run_command_parses():
    commands = [shlex.split(line)[2:] for line in SHELL if line.startswith("edgedistill run")]
    assert len(commands) >= 5
    for command in commands:
        parse(command)


@pytest.mark.slow
def test_smoke_then_device_commands_then_python(tmp_path, monkeypatch):
    for package in ("benchmarks", "deploy", "distill", "edgedistill", "student", "teacher"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    commands = [line for line in SHELL if "smoke" in line]
    assert len(commands) == 8
    for line in commands:
        result = subprocess.run(arguments_of(line), cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, f"{line}\n{result.stdout}{result.stderr}"
    assert list((tmp_path / "runs/smoke/predictions").glob("*_overlay.png"))
    monkeypatch.chdir(tmp_path)
    for index, block in enumerate(PYTHON):
        (tmp_path / f"example{index}.py").write_text(block)
        names = runpy.run_path(f"example{index}.py")
        assert names["result"].labels.shape == (48, 48)
