"""Power, clocks and temperatures of a Jetson, as the kernel shows them in /sys: without root, and without its tools.

Sources: kernel.org, hwmon/ina3221; NVIDIA, Jetson Linux developer guide r36, on the power of Orin modules (rails,
over-current events, thermal zones, devfreq); nvpmodel, which writes /var/lib/nvpmodel/status. Not run on a Jetson here.
"""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
INPUT = "VDD_IN"
"""The rail that feeds an Orin Nano or NX module. AGX modules have none, only the sum of their rails."""


def rails(root: Path = ROOT) -> dict[str, float]:
    """Watts of each rail that the power monitors measure, by name; empty where there are none, as on a PC.

    The channel "sum of shunt voltages" has no current and is left out.
    """
    found: dict[str, float] = {}
    for monitor in _monitors(root):
        for label in sorted(monitor.glob("in*_label")):
            name, number = _text(label), label.name[2:-6]
            volts = _number(monitor / f"in{number}_input")
            amperes = _number(monitor / f"curr{number}_input")
            if name and volts is not None and amperes is not None:
                found[name] = volts * amperes / 1e6  # mV · mA
    return found


def watts(root: Path = ROOT) -> float | None:
    """Watts of the whole module; None where nothing measures them."""
    found = rails(root)
    return found.get(INPUT, sum(found.values())) if found else None


def power_mode(root: Path = ROOT) -> str:
    """The power mode, such as "2 (15W)", that `nvpmodel -m` chose; "" where there is none."""
    status = re.search(r"pmode:0*(\d+)", _text(root / "var/lib/nvpmodel/status"))
    if not status:
        return ""
    names = _text(root / "etc/nvpmodel.conf")
    name = re.search(rf"POWER_MODEL\s+ID={status[1]}\s+NAME=(\S+)", names)
    return f"{status[1]} ({name[1]})" if name else status[1]


def clocks_locked(root: Path = ROOT) -> bool | None:
    """Whether the GPU's clock is fixed at its highest, as `jetson_clocks` does; None where it is not a Jetson's."""
    gpu = _gpu(root)
    if gpu is None:
        return None
    least, most = _number(gpu / "min_freq"), _number(gpu / "max_freq")
    return None if least is None or most is None else least == most


def gpu_mhz(root: Path = ROOT) -> float | None:
    """The GPU's clock now; None where it is not a Jetson's."""
    gpu = _gpu(root)
    hertz = _number(gpu / "cur_freq") if gpu else None
    return None if hertz is None else hertz / 1e6


def temperatures(root: Path = ROOT) -> dict[str, float]:
    """Degrees Celsius of each thermal zone, by its type, such as "gpu-thermal"; zones that are off are left out."""
    found: dict[str, float] = {}
    for zone in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        degrees = _number(zone / "temp")
        if degrees is not None and (name := _text(zone / "type")):
            found[name] = degrees / 1000
    return found


def throttle_events(root: Path = ROOT) -> int | None:
    """How often the module has reduced its clocks because of too much current since it started; None if unknown."""
    counts = [_number(path) for path in root.glob("sys/class/hwmon/hwmon*/oc*_event_cnt")]
    known = [int(count) for count in counts if count is not None]
    return sum(known) if known else None


def _monitors(root: Path) -> Iterator[Path]:
    for folder in sorted(root.glob("sys/class/hwmon/hwmon*")):
        if _text(folder / "name") == "ina3221":
            yield folder


def _gpu(root: Path) -> Path | None:
    """The folder of the integrated GPU's clock; its name has the GPU's address."""
    found = sorted([*root.glob("sys/class/devfreq/*.gpu"), *root.glob("sys/class/devfreq/*.g[av]*b")])
    return found[0] if found else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None
