"""text.py: what a terminal would obey is escaped, and everything else stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.text import duration, shown, shown_lines


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Straße × 3 – 水域 🌊", "Straße × 3 – 水域 🌊"),
        ("non\u00a0breaking", "non\u00a0breaking"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x1b[31mred\x07\x9b2J\x7f", r"\x1b[31mred\x07\x9b2J\x7f"),
        (b"caf\xe9.png".decode("utf-8", "surrogateescape"), r"caf\udce9.png"),
        ("exe.\u202egnp", r"exe.\u202egnp"),
        ("two\u2028lines", r"two\u2028lines"),
        ("नि\u200dर", "नि\u200dर"),  # a joiner within a word
        ("", ""),
    ],
)
def test_shown(text, expected):
    assert shown(text) == expected


def test_lines_and_tabs_stay_where_lines_are_meant():
    assert shown_lines("a\tb\nc\x1b[2J\n") == "a\tb\nc\\x1b[2J\n"


@given(st.text(st.characters()))
def test_any_text_is_one_line_that_can_be_encoded(text):
    line = shown(text)
    assert len(line.encode().decode().splitlines()) <= 1
    assert "\x1b" not in line
    assert shown(line) == line
    assert shown_lines(text).count("\n") == text.count("\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(40.4, "40 s"), (90, "2 min"), (3600, "60 min"), (7200, "2.0 h"), (3 * 86400, "3.0 days")],
)
def test_durations_to_read(seconds, text):
    assert duration(seconds) == text
