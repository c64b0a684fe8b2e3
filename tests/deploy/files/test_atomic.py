"""errors.py and atomic.py: one line for the user, and no half-written file."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deploy.errors import GateFailed, UserError, exit_with_one_line
from deploy.files.atomic import atomic_write, sha256_file, write_json
from tests.conftest import ROOT


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def leave(error: BaseException | None, code: int | None = None):
    def main():
        if error is not None:
            raise error
        return code

    with pytest.raises(SystemExit) as stop:
        exit_with_one_line(main)
    return stop.value.code


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("data/x.png: corrupt"), 2, "error: data/x.png: corrupt\n"),
        (GateFailed("hop onnx: 0.4"), 1, "error: hop onnx: 0.4\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (
            OSError(errno.ENOSPC, "No space", "runs/a.pt"),
            2,
            "error: runs/a.pt: the disk is full; free some space\n",
        ),
    ],
)
def test_expected_failures_become_one_line(error, code, line, capsys):
    assert leave(error) == code
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (3, 3)])
def test_exit_code_is_what_main_returns(returned, code):
    assert leave(None, returned) == code


def test_unexpected_failures_keep_their_traceback():
    with pytest.raises(PermissionError):
        exit_with_one_line(lambda: (_ for _ in ()).throw(PermissionError("x")))


def test_write_replaces_at_the_end_only(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    with atomic_write(path, "w") as file:
        file.write("τ²")
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "τ²"
    assert names(path.parent) == ["a.txt"]


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    def fail(file):
        file.write(b"new")
        raise ZeroDivisionError

    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        fail(file)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_one_line_naming_the_file(tmp_path, monkeypatch, code):
    def full(_descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    path = tmp_path / "weights.bin"
    with (
        pytest.raises(UserError, match=r"weights\.bin: the disk is full") as caught,
        atomic_write(path) as file,
    ):
        file.write(b"x" * 100)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


def test_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(UserError, match=r"file/a\.txt: cannot be written"),
        atomic_write(tmp_path / "file" / "a.txt"),
    ):
        pass


def test_error_of_another_file_inside_the_block_is_not_blamed_on_this_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere"), atomic_write(tmp_path / "a") as file:
        file.write(Path("/elsewhere/b").read_bytes())


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 1000)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"abc" * 1000).hexdigest()


def test_json_takes_numpy_and_paths_and_sorts(tmp_path):
    write_json(
        tmp_path / "a.json", {"b": np.float32(0.5), "a": [np.int64(3), Path("x/y")], "c": np.float64(2)}
    )
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"a": [3, "x/y"], "b": 0.5, "c": 2.0}
    assert text.index('"a"') < text.index('"b"')


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"miou": float("nan")})
    assert names(tmp_path) == []


def test_a_replaced_file_keeps_its_permissions(tmp_path):
    path = tmp_path / "secret.json"
    path.write_text("old")
    path.chmod(0o600)
    write_json(path, {"new": 1})
    assert path.stat().st_mode & 0o777 == 0o600


def test_numpy_does_not_hide_why_it_cannot_write(tmp_path):
    """It writes into files opened by "wb" itself, and tells no reason, such as a full disk (here: a limit)."""
    code = """
import resource, sys
import numpy as np
from deploy.errors import UserError
from deploy.files.atomic import atomic_write
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    with atomic_write(sys.argv[1]) as file:
        np.save(file, np.zeros(1 << 20))
except UserError as error:
    print(error)
"""
    path = tmp_path / "a.npy"
    result = subprocess.run(
        [sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.stdout == f"{path}: cannot be written (File too large); choose another folder\n"
    assert list(tmp_path.iterdir()) == []
