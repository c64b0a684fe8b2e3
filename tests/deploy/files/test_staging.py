"""Replacing a folder: in one step, with nothing lost by a kill and nothing left behind."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deploy.files import staging as module
from deploy.files.atomic import is_stale, sibling
from deploy.files.staging import exchange, remove_leftovers, staged


def write(folder: Path, text: str, keep: tuple[str, ...] = ()) -> None:
    with staged(folder, keep) as new:
        (new / "file").write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["exchanged", "renamed"])
def system(request, monkeypatch):
    """With and without the system's exchange."""
    if request.param == "renamed":
        monkeypatch.setattr(module, "exchange", lambda one, other: False)


@pytest.mark.usefixtures("system")
class TestReplaced:
    def test_the_new_folder_is_there_and_nothing_else(self, tmp_path):
        for text in ("one", "two"):
            write(tmp_path / "folder", text)
            assert (tmp_path / "folder" / "file").read_text() == text
            assert names(tmp_path) == ["folder"]

    def test_a_failed_block_leaves_the_old_folder(self, tmp_path):
        def fail():
            with staged(tmp_path / "folder"):
                raise ZeroDivisionError

        write(tmp_path / "folder", "one")
        with pytest.raises(ZeroDivisionError):
            fail()
        assert (tmp_path / "folder" / "file").read_text() == "one"
        assert names(tmp_path) == ["folder"]

    def test_kept_subfolders_come_along(self, tmp_path):
        write(tmp_path / "folder", "one")
        (tmp_path / "folder" / "engines" / "deep").mkdir(parents=True)
        (tmp_path / "folder" / "engines" / "deep" / "plan").write_bytes(b"plan")
        write(tmp_path / "folder", "two", ("engines", "none"))
        assert (tmp_path / "folder" / "engines" / "deep" / "plan").read_bytes() == b"plan"
        assert names(tmp_path / "folder") == ["engines", "file"]


KILLED = """
import os, sys
from pathlib import Path
from deploy.files import staging

{patch}
with staging.staged(Path(sys.argv[1])) as new:
    (new / "file").write_text("two")
    {inside}
"""
RENAMED = "staging.exchange = lambda one, other: False; "
KILLS = {
    "while it is filled": ("", "os._exit(9)"),
    "after the exchange": ("staging.shutil.rmtree = lambda *a, **k: os._exit(9)", "pass"),
    "between two renames": (
        RENAMED + "rename = Path.rename\n"
        "def die(self, target):\n    rename(self, target)\n    os._exit(9)\nPath.rename = die",
        "pass",
    ),
}


@pytest.mark.parametrize("kill", KILLS)
def test_a_kill_loses_nothing_and_the_next_call_cleans_up(tmp_path, kill):
    folder = tmp_path / "folder"
    write(folder, "one")
    patch, inside = KILLS[kill]
    script = KILLED.format(patch=patch, inside=inside)
    code = subprocess.run([sys.executable, "-c", script, str(folder)], check=False).returncode
    assert code == 9
    assert len(names(tmp_path)) == (1 if kill == "between two renames" else 2) + (
        kill == "between two renames"
    )
    module.recover(folder)
    assert names(tmp_path) == ["folder"]
    assert (folder / "file").read_text() == ("two" if kill == "after the exchange" else "one")
    write(folder, "three")
    assert names(tmp_path) == ["folder"]


def test_what_a_running_process_writes_is_not_touched(tmp_path):
    mine = sibling(tmp_path / "folder")
    mine.mkdir()
    assert not is_stale(mine)
    write(tmp_path / "folder", "one")
    remove_leftovers(tmp_path)
    assert mine.is_dir()


def test_leftovers_of_killed_processes_are_found_in_subfolders(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / "student" / f".best.safetensors.{dead.pid}-0123abcd.tmp"
    left.parent.mkdir()
    left.write_bytes(b"half")
    (left.parent / ".mine.tmp").write_bytes(b"of somebody else")
    remove_leftovers(tmp_path)
    assert names(left.parent) == [".mine.tmp"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="renameat2 is of Linux")
def test_readers_never_find_the_path_empty(tmp_path):
    folder, done, missing = tmp_path / "folder", threading.Event(), []

    def read():
        while not done.is_set():
            if not (folder / "file").is_file():
                missing.append(1)

    write(folder, "0")
    reader = threading.Thread(target=read)
    reader.start()
    for number in range(100):
        write(folder, str(number))
    done.set()
    reader.join()
    assert not missing


def test_an_exchange_of_what_is_missing_is_an_error(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        exchange(tmp_path / "a", tmp_path / "b")
    assert names(tmp_path) == []


def test_a_long_name_can_be_replaced(tmp_path):
    write(tmp_path / ("ä" * 120), "one")
    write(tmp_path / ("ä" * 120), "two")
    assert names(tmp_path) == ["ä" * 120]
