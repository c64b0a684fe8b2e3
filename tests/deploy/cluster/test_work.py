"""The work folder: one client at a time, what is left of killed ones, and what is removed."""

import pytest

from deploy.cluster.outcome import Done
from deploy.cluster.tasks import Item
from deploy.cluster.work import claimed, publish, staging
from deploy.errors import UserError

FINGERPRINT = {"bundle": "1"}


def claim(tmp_path, resume=False, fingerprint=FINGERPRINT):
    return claimed(tmp_path / "out" / ".predict-many", tmp_path / "out", fingerprint, resume)


def done(name, **files):
    return Done(f"{name}.png", "stamp", name, files)


def test_what_is_done_is_remembered_while_its_files_are_there(tmp_path):
    with claim(tmp_path) as work:
        for name in ("a", "b", "c"):
            (tmp_path / "out" / f"{name}.txt").write_text("12345")
            work.add(done(name, **{f"{name}.txt": 5}))
    (tmp_path / "out" / "b.txt").write_text("1")
    (tmp_path / "out" / "c.txt").unlink()
    with claim(tmp_path, resume=True) as work:
        assert [work.is_done(Item(f"/in/{name}.png", name, "stamp")) for name in "abcd"] == [
            True,
            *[False] * 3,
        ]
        assert not work.is_done(Item("/in/a.png", "a", "another stamp"))
        assert not work.is_done(Item("/in/a.png", "a_png", "stamp"))
        work.remove()
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == []


def test_a_run_without_anything_done_leaves_nothing(tmp_path):
    with claim(tmp_path) as work:
        assert work.run.is_dir()
    assert list((tmp_path / "out").iterdir()) == []


def test_two_clients_at_once(tmp_path):
    with claim(tmp_path) as work:
        work.add(done("a"))
        with (
            pytest.raises(UserError, match="another predict-many is writing there"),
            claim(tmp_path, resume=True),
        ):
            pass
        assert work.run.is_dir()


def test_an_interrupted_run_is_named_and_its_unfinished_files_are_removed(tmp_path):
    with claim(tmp_path) as work:
        (work.chunks / "a.tif").mkdir()
        (work.chunks / "a.tif" / "labels-0-1.npy").write_bytes(b"")
    (work.folder / "0123456789abcdef" / "fedcba").mkdir(parents=True)  # of a killed client
    with (
        pytest.raises(UserError, match=r"left 0 finished inputs or parts of some; add --resume"),
        claim(tmp_path),
    ):
        pass
    other = claim(tmp_path, True, {"bundle": "2"})
    with pytest.raises(UserError, match="cannot be resumed, because bundle changed"), other:
        pass
    with claim(tmp_path, resume=True) as work:
        assert sorted(path.name for path in work.folder.iterdir()) == sorted(
            ["chunks", "journal", work.run.name]
        )
        assert (work.chunks / "a.tif" / "labels-0-1.npy").exists()


def test_damaged_lines_of_the_journal_are_done_again(tmp_path):
    with claim(tmp_path) as work:
        work.add(done("a"))
        work.add(done("b"))
    path = work.journal.path
    path.write_bytes(path.read_bytes()[:-9])
    with claim(tmp_path, resume=True) as work:
        assert list(work.done) == ["a.png"]
        work.add(done("c"))
    with claim(tmp_path, resume=True) as work:
        assert list(work.done) == ["a.png", "c.png"]


def test_files_of_a_task_appear_when_they_are_complete(tmp_path):
    with claim(tmp_path) as work, staging(work.run, work.out) as folder:
        for name in ("a.txt", "b.txt"):
            (folder / name).write_text("123")
        assert not (work.out / "a.txt").exists()
        assert publish(folder, work.out) == {"a.txt": 3, "b.txt": 3}
        assert (work.out / "a.txt").read_text() == "123"
    assert not folder.exists()


def test_a_task_of_a_run_that_has_ended_writes_nothing(tmp_path):
    with claim(tmp_path) as work:
        pass
    with pytest.raises(UserError, match="out: cannot be written"), staging(work.run, work.out):
        pass


def test_an_output_that_is_a_file(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="out: cannot be written"), claim(tmp_path):
        pass
