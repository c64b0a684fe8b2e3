"""json_files.py: whatever a file holds, it is read or refused in one line."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.errors import UserError
from deploy.files.json_files import one_line, read_json, read_record
from deploy.text import shown


class Record(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    size: int = 0


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.json"


def test_records_are_read(path):
    path.write_text('{"name": "a", "size": 3}')
    assert read_json(path, Record) == Record("a", 3)
    assert read_json(path, object) == {"name": "a", "size": 3}


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\xff\xfe", b'{"name": "\xff"}', b'{"name": "\\ud800"}', b"[" * 100_000, b'{"name":' * 100_000,
        b'{"name": "a", "more": ' + b"[" * 5000 + b"]" * 5000 + b"}", b'{"name": 1}', b"null",
        b'{"name": "a", "x\\n": 1}',
        b'{"name": "a", "size": 1e400}', b'{"name": "a", "' + b"x" * 9999 + b'": 1}', b'{"name": "a"} trailing',
    ],
)  # fmt: skip
def test_everything_else_is_one_short_line(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r".") as caught:
        read_json(path, Record)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_large_files_are_not_read(path):
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match="more than 64 MiB"):
        read_json(path, Record)


def test_a_missing_file_is_the_systems_error(path):
    with pytest.raises(FileNotFoundError):
        read_json(path, Record)


@given(st.text())
def test_any_error_becomes_one_line(text):
    line = one_line(ValueError(text))
    assert shown(line) == line


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_a_damaged_record_is_one_line_with_its_remedy(tmp_path, content):
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"record\.json: cannot be read \([^\n]+\); make it again$"):
        read_record(path, dict[str, int], "make it again")
    path.write_bytes(b'{"a": 1}')
    assert read_record(path, dict[str, int], "make it again") == {"a": 1}
