"""Text for a terminal: what can be shown is shown, everything else is escaped, and nothing is lost."""

import unicodedata

_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories of control and format characters (among them those that reverse text), surrogates (bytes of a file
name that are not UTF-8) and separators of lines."""
_JOINERS = "\u200c\u200d"
"""Format characters that belong to words of some languages."""


def shown(text: str) -> str:
    r"""Return the text as one plain line: characters that a terminal would obey or could not encode become escapes.

    A newline becomes `\n`, the escape character `\x1b`, and a byte 0xE9 of a name that is not UTF-8 `\udce9`.
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def shown_lines(text: str) -> str:
    """As `shown`, but newlines and tabs stay."""
    return "\n".join("\t".join(map(shown, line.split("\t"))) for line in text.split("\n"))


def duration(seconds: float) -> str:
    """A time to read, such as "40 s", "12 min" or "5.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.1f} days"


def _shown(character: str) -> str:
    if character in _JOINERS or unicodedata.category(character) not in _HIDDEN:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
