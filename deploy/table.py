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
        if _is_slower(int8, fp32)
    ]
    note = "INT8 is slower than fp32 here: {}; the backend auto takes the fastest that passed its gate"
    return [note.format("; ".join(slower))] if slower else []


def int8_notes_by_backend(milliseconds: Mapping[tuple[str, str, str], float]) -> list[str]:
    """`int8_notes` of a table with several backends.

    INT8 that is faster than fp32 in its own backend may still be slower than another backend's fp32: the line says so
    of a network's fastest INT8.

    Args:
        milliseconds: time of one inference, by network, backend and precision.
    """
    pairs = {(f"{network} on {backend}", kind): ms for (network, backend, kind), ms in milliseconds.items()}
    for network in dict.fromkeys(network for network, *_ in milliseconds):
        fastest: dict[str, tuple[float, str]] = {}
        for (name, backend, kind), ms in milliseconds.items():
            if name == network:
                fastest[kind] = min(fastest.get(kind, (ms, backend)), (ms, backend))
        if "int8" not in fastest or "fp32" not in fastest:
            continue
        (int8, ours), (fp32, theirs) = fastest["int8"], fastest["fp32"]
        own = milliseconds.get((network, ours, "fp32"))
        if ours != theirs and (own is None or not _is_slower(int8, own)):
            what = f"{network} on {ours} against {theirs}"
            pairs |= {(what, "int8"): int8, (what, "fp32"): fp32}
    return int8_notes(pairs)


def _is_slower(int8: float, fp32: float) -> bool:
    """Whether a time is longer than that of fp32 and not equal as printed."""
    return fp32 / int8 < 0.995
