"""The journal of a run: entries survive, damage ends them, and another run is not continued."""

import pytest

from deploy.errors import UserError
from deploy.files.journal import Journal


def journal(folder, is_entry=lambda _, line: line.startswith(b"e")):
    return Journal(folder / "out.tif", folder / "journal", is_entry)


def test_entries_are_kept_in_order(tmp_path):
    one = journal(tmp_path)
    assert (one.exists(), one.entries()) == (False, [])
    one.begin({"bundle": 1})
    one.add(b"e1")
    one.add(b"e2", sync=False)
    assert journal(tmp_path).entries() == [b"e1", b"e2"]
    one.close()
    again = journal(tmp_path)
    assert again.exists()
    assert again.resume({"bundle": 1}) == [b"e1", b"e2"]
    again.add(b"e3")
    again.close()
    assert journal(tmp_path).entries() == [b"e1", b"e2", b"e3"]
    again.remove()
    assert list(tmp_path.iterdir()) == []


def test_what_follows_damage_is_dropped(tmp_path):
    one = journal(tmp_path)
    one.begin({})
    for line in (b"e1", b"\xff", b"e2"):
        one.add(line)
    one.close()
    with open(one.path, "ab") as file:
        file.write(b"e-without-an-end")
    again = journal(tmp_path)
    assert again.resume({}) == [b"e1"]
    again.add(b"e4")
    again.close()
    assert journal(tmp_path).entries() == [b"e1", b"e4"]


def test_entries_may_depend_on_their_position(tmp_path):
    one = journal(tmp_path, lambda position, line: line == str(position).encode())
    one.begin({})
    for line in (b"0", b"1", b"1"):
        one.add(line)
    assert one.entries() == [b"0", b"1"]
    one.close()


def test_another_run_is_refused_by_what_changed(tmp_path):
    one = journal(tmp_path)
    one.begin({"bundle": 1, "--overlap": None})
    one.close()
    with pytest.raises(UserError, match=r"out\.tif: cannot be resumed, because --overlap changed since"):
        journal(tmp_path).resume({"bundle": 1, "--overlap": 3})


@pytest.mark.parametrize("start", [lambda journal: journal.begin({}), lambda journal: journal.resume({})])
def test_a_link_in_place_of_the_journal_is_not_followed(tmp_path, start):
    other = tmp_path / "other"
    other.write_text("{}\n")
    one = journal(tmp_path)
    one.path.symlink_to(other)
    with pytest.raises(UserError, match=r"out\.tif: cannot be written"):
        start(one)
    assert other.read_text() == "{}\n"
