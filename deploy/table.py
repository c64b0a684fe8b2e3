"""Plain-text tables for reports on the terminal."""

from collections.abc import Mapping, Sequence


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns under a header and a rule: the first column to the left, the others to the right."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    first, *others = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells
    ]
    return "\n".join(line.rstrip() for line in [first, "-" * len(first), *others])


def int8_notes(milliseconds: Mapping[tuple[str, str], float]) -> list[str]:
    """The line to print below a table of latency where INT8 is slower than fp32; no line where it never is.

    That happens on CPUs without instructions for 8-bit products (VNNI, or dot products on ARM).

    Args:
        milliseconds: time of one inference, by what was measured (a network, its backend) and precision ("fp32",
            "int8"; others are ignored).
    """
    slower = [
        f"{what} {fp32 / int8:.2f}× ({int8:.2f} ms against {fp32:.2f})"
        for (what, precision), int8 in milliseconds.items()
        if precision == "int8" and (fp32 := milliseconds.get((what, "fp32"))) is not None
        if fp32 / int8 < 0.995  # otherwise equal as printed
    ]
    note = "INT8 is slower than fp32 here: {}; the backend auto takes the fastest that passed its gate"
    return [note.format("; ".join(slower))] if slower else []
