"""Tables as CSV files."""

import pytest

from distill.reporting.csv_files import write_csv


def test_numbers_text_and_missing_values(tmp_path):
    path = tmp_path / "table.csv"
    write_csv(path, ("name", "count", "score"), [("a, b", 3, 0.5), ("c", None, float("nan")), ("", 0, 1e-7)])
    assert path.read_bytes() == b'name,count,score\n"a, b",3,0.500000\nc,,\n,0,0.000000\n'


def test_rows_that_raise_leave_the_old_file(tmp_path):
    path = tmp_path / "table.csv"
    write_csv(path, ("a",), [(1,)])

    def rows():
        yield (2,)
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_csv(path, ("a",), rows())
    assert path.read_text() == "a\n1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_text_that_a_spreadsheet_would_run_is_text(tmp_path):
    write_csv(tmp_path / "a.csv", ["name"], [["=1+1"], ["@x"], ["-x"], ["-1.5"], ["road"], ["a=b"]])
    assert (tmp_path / "a.csv").read_text() == "name\n'=1+1\n'@x\n'-x\n-1.5\nroad\na=b\n"
