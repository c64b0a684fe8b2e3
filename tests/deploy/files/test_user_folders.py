"""Folders of the user: own variables first, then the standard's, then the home folder."""

from pathlib import Path

import pytest

from deploy.files.user_folders import cache_folder, state_folder

FOLDERS = {
    cache_folder: ("EDGEDISTILL_CACHE", "XDG_CACHE_HOME", ".cache"),
    state_folder: ("EDGEDISTILL_STATE", "XDG_STATE_HOME", ".local/state"),
}


@pytest.mark.parametrize("function", FOLDERS)
def test_order(monkeypatch, tmp_path, function):
    own, standard, default = FOLDERS[function]
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv(standard, str(tmp_path / "xdg"))
    monkeypatch.setenv(own, str(tmp_path / "own"))
    assert function() == tmp_path / "own"
    monkeypatch.delenv(own)
    assert function() == tmp_path / "xdg" / "edgedistill"
    monkeypatch.delenv(standard)
    assert function() == tmp_path / "home" / default / "edgedistill"
    monkeypatch.setattr(Path, "home", lambda: Path("/nowhere"))
    assert function() == Path("/nowhere") / default / "edgedistill"
