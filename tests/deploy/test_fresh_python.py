"""fresh_python.py: the arguments arrive, and the working directory is not searched."""

import subprocess
from pathlib import Path

import pytest

from deploy.fresh_python import python_command


def run(code: str, *arguments: str, cwd: Path) -> str:
    command = python_command(code, arguments)
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True, timeout=60).stdout


def test_arguments(tmp_path):
    assert run("print(sys.argv[1:])", "a", "-b", cwd=tmp_path) == "['a', '-b']\n"


def test_files_of_the_working_directory_are_not_imported(tmp_path):
    (tmp_path / "colorsys.py").write_text("raise SystemExit('shadowed')")
    assert run("import colorsys; print(colorsys.ONE_THIRD < 1)", cwd=tmp_path) == "True\n"
    with pytest.raises(subprocess.CalledProcessError):
        run("import colorsys_of_this_folder", cwd=tmp_path)
