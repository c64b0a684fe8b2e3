"""The tables that `benchmarks/gpu.py` prints."""

from collections.abc import Mapping, Sequence

from benchmarks.gpu_engine import Row, Throughput, Timing
from deploy.measure.energy import Energy, PowerState
from deploy.table import format_table

LAYERS = 10
"""Slowest layers of an engine that are printed."""


def tables(rows: Sequence[Row]) -> str:
    """The engines, their latency and throughput for a batch, the slowest layers, and what to know about the figures."""
    parts = [_engines(rows), _latency(rows), _throughput(rows)]
    parts += [_layers(row) for row in rows if row.profile]
    return "\n\n".join(part for part in (*parts, _remarks(rows)) if part)


def power_lines(power: Mapping[str, object]) -> str:
    """What limits the power of this machine, and what to do before measuring; or why power is not measured."""
    state = power["before"]
    assert isinstance(state, PowerState)
    idle = state.idle
    known = [
        f"power mode {state.mode}" if state.mode and state.clocks_locked is not None else state.mode,
        "" if state.clocks_locked is None else f"clocks {'' if state.clocks_locked else 'not '}locked",
        *(f"{name} {watts:.1f} W" for name, watts in state.rails.items()),
        "" if idle.watts is None else f"{idle.watts:.1f} W idle",
        "" if idle.celsius is None else f"{idle.celsius:.0f} °C",
        "" if idle.mhz is None else f"{idle.mhz:.0f} MHz",
        *idle.throttled,
    ]
    lines = [", ".join(filter(None, known))]
    if state.clocks_locked is False:
        lines.append("clocks vary, and figures with them: sudo nvpmodel -m 0 && sudo jetson_clocks")
    if power["why_not"]:
        lines.append(f"energy is not measured: {power['why_not']}")
    return "\n".join(filter(None, lines))


def _engines(rows: Sequence[Row]) -> str:
    header = (
        "engine",
        "batch",
        "MB",
        "GPU MB",
        "build s",
        "load s",
        "reload s",
        "INT8 convolutions",
        "golden %",
    )
    lines = []
    for row in rows:
        layers, megabytes = row.sidecar.layers, f"{row.sidecar.bytes / 1e6:.1f}"
        seconds = [f"{value:.2f}" for value in (row.sidecar.build_seconds, row.load_s, row.reload_s)]
        int8 = f"{layers.int8_convolutions} of {layers.convolutions}" if layers else "?"
        golden, batch = f"{100 * row.golden_agreement:.2f}", str(row.sidecar.batch[2])
        lines.append((row.engine, batch, megabytes, f"{row.gpu_bytes / 1e6:.0f}", *seconds, int8, golden))
    return format_table(header, lines)


def _latency(rows: Sequence[Row]) -> str:
    header = ("latency", "batch", "with copies", "CUDA graph", "p50 ms", "p99 ms", *_ENERGY)
    lines = [
        (
            row.engine,
            str(one.batch),
            *("yes" if way else "–" for way in (one.copies, one.cuda_graph)),
            f"{one.p50:.3f}",
            f"{one.p99:.3f}",
            *_energy(one),
        )
        for row in rows
        for one in row.timings
    ]
    return format_table(header, lines)


def _throughput(rows: Sequence[Row]) -> str:
    header = ("throughput", "batch", "streams", "CUDA graph", "images/s", *_ENERGY)
    lines = [
        (
            row.engine,
            str(one.batch),
            str(one.streams),
            "yes" if one.cuda_graph else "–",
            f"{one.images_per_second:.1f}",
            *_energy(one),
        )
        for row in rows
        for one in row.throughput
    ]
    return format_table(header, lines) if lines else ""


_ENERGY = ("mJ a frame", "W", "MHz", "°C")


def _energy(one: Timing | Throughput) -> tuple[str, ...]:
    energy, joules = one.energy, one.joules_per_frame
    return (
        "–" if joules is None else f"{1000 * joules:.2f}",
        *(
            "–" if value is None else f"{value:.{digits}f}"
            for value, digits in ((energy.watts, 1), (energy.mhz, 0), (energy.celsius, 0))
        ),
    )


def _layers(row: Row) -> str:
    title = f"{row.engine}, batch {row.sidecar.batch[2]}: slowest of {len(row.profile)} layers"
    lines = [(one.name[:80], f"{one.ms:.3f}", f"{100 * one.share:.1f}") for one in row.profile[:LAYERS]]
    return f"{title}\n{format_table(('layer', 'ms', '%'), lines)}"


def _remarks(rows: Sequence[Row]) -> str:
    energies: list[Energy] = [one.energy for row in rows for one in (*row.timings, *row.throughput)]
    reasons = dict.fromkeys(why for energy in energies for why in energy.throttled)
    lines = [f"clocks were reduced while measuring: {', '.join(reasons)}"] if reasons else []
    lines += dict.fromkeys(f"no CUDA graph: {row.no_graph}" for row in rows if row.no_graph)
    lines += dict.fromkeys(f"fewer streams: {row.no_throughput}" for row in rows if row.no_throughput)
    return "\n".join(lines)
