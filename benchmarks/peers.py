"""What do other packages' networks cost beside ours? `python benchmarks/peers.py [NAME …] [--size 320] [--json FILE]`.

Builds each network untrained, exports and quantizes it as a run does (min-max ranges of noise: speed does not depend on
them), and times the engines of all in turns, on every CPU backend in fp32 and INT8. All do the same work: uint8 image
in, labels of each pixel and the class scores at the network's own stride out. With `--alone` labels are at that stride,
too, so that the upsampling which all networks share takes no part. Peers take part if their packages are installed; the
table says what to install for the others.

`--again` times the bundles that an earlier call left in `--folder`: all, or those named.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository root, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from benchmarks.peer_networks import PEERS, missing_peers
from benchmarks.peers_bundles import PEAK, Index, export_all, read_index
from benchmarks.peers_timing import PRECISIONS, Row, measure
from benchmarks.turns import int8_lines
from deploy.errors import UserError, exit_with_one_line
from deploy.files.atomic import write_json
from deploy.measure import machine
from deploy.table import format_table

OURS = (
    "edge-nano",
    "edge-small",
    "edge-medium",
    "edge-small:depths=(2,2,2,2)",
    "pspnet/tf_efficientnet_lite0:output_stride=16,head_channels=128",
    "pspnet/resnet18:output_stride=16,head_channels=128",
    "pspnet/resnet50",
)
SIZE, CLASSES = 320, 11
"""Input and classes, unless the command line says otherwise."""
REFERENCE = "ultralytics YOLO26n-sem"
"""The network that others are compared with in the last columns, if it takes part."""


def main(argv: Sequence[str]) -> int:
    """Export, measure, print both tables and write the JSON."""
    options = _parser().parse_args(argv)
    if options.rounds < 1:
        raise UserError(f"--rounds {options.rounds}: must be 1 or more")
    if options.threads is not None and options.threads < 1:
        raise UserError(f"--threads {options.threads}: must be 1 or more")
    if not 0 <= options.quantile <= 1:
        raise UserError(f"--quantile {options.quantile:g}: must be in 0..1")
    missing = missing_peers()
    names = [name for name in options.names or (*OURS, *PEERS) if name not in missing]
    absent = {name: missing[name] for name in options.names or PEERS if name in missing}
    index = (
        read_index(options.folder, options.names)
        if options.again
        else export_all(
            names, options.folder, options.size or SIZE, options.classes or CLASSES, options.alone
        )
    )
    _check_asked(index, options)
    if options.only_export:
        return 0
    cold = options.cold and not index.alone
    rows = measure(index, options.folder, options.rounds, cold, options.threads, options.quantile)
    about = machine.describe()
    print(machine.summary(about), latency_table(rows, absent), cost_table(rows), sep="\n\n")
    if options.json:
        report = {"machine": about, "size": index.size, "classes": index.classes, "alone": index.alone}
        report |= {"threads": options.threads, "quantile": options.quantile, "missing": absent} | {
            "peak": peak(rows),
            "rows": [asdict(row) for row in rows],
            "ratios": ratios(rows),
        }
        write_json(options.json, report)
    return 0


def _check_asked(index: Index, options: argparse.Namespace) -> None:
    """Raise `UserError` if the bundles that are there are not those that the options describe."""
    for name in ("size", "classes", "alone"):
        asked, found = getattr(options, name), getattr(index, name)
        if asked and asked != found:
            what = f"--{name}" if asked is True else f"--{name} {asked}"
            raise UserError(f"{what}: the bundles in {options.folder} have {found}; run without --again")


def peak(rows: Sequence[Row]) -> dict[str, float]:
    """GMAC per second by precision: the highest of any network and backend, which should be `PEAK`'s."""
    return {precision: max(row.macs / row.best(precision) / 1e6 for row in rows) for precision in PRECISIONS}


def ratios(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Each network's latency over the reference's, both on their faster backend, by precision; "any": in their fastest.

    Empty if the reference takes no part.
    """
    reference = next((row for row in rows if row.name == REFERENCE), None)
    if reference is None:
        return {}
    return {
        row.name: {
            "any": row.best() / reference.best(),
            **{precision: row.best(precision) / reference.best(precision) for precision in PRECISIONS},
        }
        for row in rows
        if row.name not in (PEAK, REFERENCE)
    }


def latency_table(rows: Sequence[Row], absent: Mapping[str, str]) -> str:
    """Milliseconds by backend and precision, and the ratio to the reference; networks not installed at the end."""
    forms, relative = list(rows[0].ms), ratios(rows)
    header = ("network", "params M", "GMAC", *(f"{form} ms" for form in forms))
    compared = (*PRECISIONS, "any")
    header = (*header, *(f"{precision} ×" for precision in compared))
    lines = []
    for row in rows:
        own = relative.get(row.name, {})
        times = (f"{row.ms[form]:.2f}" for form in forms)
        shares = (f"{own[precision]:.2f}" if own else "" for precision in compared)
        counts = (f"{row.parameters / 1e6:.2f}", f"{row.macs / 1e9:.3f}")
        lines.append((row.name, *counts, *times, *shares))
    needed = [f"{name}: not measured, needs {command}" for name, command in absent.items()]
    note = (
        [f"×: latency over {REFERENCE}'s, each on its faster backend; any: in its fastest precision"]
        if relative
        else []
    )
    slower = int8_lines({row.name: row.ms for row in rows})
    return "\n".join([format_table(header, lines), *note, *slower, *needed])


def cost_table(rows: Sequence[Row]) -> str:
    """Share of the peak, file size, start-up and memory by precision, each on the network's faster backend."""
    highest = peak(rows)
    header = ("network",)
    for precision in PRECISIONS:
        header += tuple(f"{precision} {what}" for what in ("peak %", "MB", "first result s", "memory MB"))
    lines = []
    for row in rows:
        cells: list[str] = [row.name]
        for precision in PRECISIONS:
            share = 100 * row.macs / row.best(precision) / 1e6 / highest[precision]
            cells += [f"{share:.0f}", f"{row.bytes[precision] / 1e6:.1f}"]
            started = precision in row.first_result_s
            cells.append(f"{row.first_result_s[precision]:.2f}" if started else "")
            cells.append(f"{row.peak_rss_bytes[precision] / 1e6:.0f}" if started else "")
        lines.append(tuple(cells))
    note = ", ".join(f"{precision} {rate:.0f} GMAC/s" for precision, rate in highest.items())
    return f"{format_table(header, lines)}\npeak of this machine in this run: {note}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks/peers.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks, with options after a colon")
    parser.add_argument("--size", type=int, help=f"side of the square input in pixels ({SIZE})")
    parser.add_argument("--classes", type=int, help=f"classes ({CLASSES})")
    parser.add_argument("--rounds", type=int, default=20, help="turns of each engine, of 30 ms or more (20)")
    parser.add_argument("--threads", type=int, help="CPU threads of the engines (their own choice)")
    parser.add_argument(
        "--quantile", type=float, default=0.5, help="of the milliseconds; 0: the least disturbed (0.5)"
    )
    parser.add_argument(
        "--alone", action="store_true", help="networks without upsampling and full-size labels"
    )
    parser.add_argument("--no-cold", dest="cold", action="store_false", help="start no fresh processes")
    parser.add_argument("--folder", type=Path, default=Path("runs/peers"), help="folder of the bundles")
    parser.add_argument("--only-export", action="store_true", help="write the bundles, measure nothing")
    parser.add_argument("--again", action="store_true", help="time the bundles that are there, export none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    return parser


if __name__ == "__main__":
    exit_with_one_line(lambda: main(sys.argv[1:]))
