"""Power and energy of a GPU while something runs: what a figure of speed means nothing without."""

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from deploy.errors import UserError
from deploy.measure import jetson
from deploy.measure.nvml import Nvml

INTERVAL = 0.05
"""Seconds between two readings."""


T = TypeVar("T")


class Gpu(Protocol):
    """The part of `deploy.backends.tensorrt_gpu.cuda_interface.Device` that is needed here."""

    @property
    def integrated(self) -> bool: ...
    @property
    def pci(self) -> str: ...


class Reading(msgspec.Struct, frozen=True):
    """One reading; None where nothing measures it."""

    watts: float | None
    """Of the board of a GPU, or of the whole module of a Jetson."""
    celsius: float | None
    """Of the GPU."""
    mhz: float | None
    """Clock of the GPU."""
    throttled: tuple[str, ...] = ()
    """Why the clocks are lower than they could be."""


class PowerState(msgspec.Struct, frozen=True):
    """What limits the power of a machine."""

    mode: str
    """Power mode of a Jetson, or the limit of a board; "" if unknown."""
    clocks_locked: bool | None
    """Jetson: whether clocks are fixed at their highest (`jetson_clocks`)."""
    rails: dict[str, float]
    """Jetson: watts of each rail."""
    idle: Reading


class Energy(msgspec.Struct, frozen=True):
    """What a stretch of work took."""

    seconds: float
    joules: float | None
    """None where nothing measures power."""
    watts: float | None
    """Mean."""
    celsius: float | None
    """Highest."""
    mhz: float | None
    """Lowest clock of the GPU."""
    throttled: tuple[str, ...]
    """Why clocks were lower than they could be at any time."""

    def joules_per(self, frames: int) -> float | None:
        """Joules of each of some frames."""
        return None if self.joules is None else self.joules / frames


class Meter:
    """Reads the power of one GPU, or of the Jetson that it is in.

    Args:
        gpu: the GPU.
        root: where /sys is found.
    """

    def __init__(self, gpu: Gpu, root: Path = jetson.ROOT) -> None:
        self._root, self._nvml = root, None
        self.why_not = ""
        """Why power is not measured; "" if it is."""
        if gpu.integrated:
            self.why_not = "" if jetson.rails(root) else "this board shows no power monitors in /sys"
            return
        try:
            self._nvml = Nvml(gpu.pci)
        except UserError as error:
            self.why_not = str(error)

    def state(self) -> PowerState:
        """What limits the power; and a reading."""
        if self._nvml:
            limit = self._nvml.limit_watts()
            return PowerState(f"limit {limit:g} W" if limit else "", None, {}, self.read())
        mode, locked = jetson.power_mode(self._root), jetson.clocks_locked(self._root)
        return PowerState(mode, locked, jetson.rails(self._root), self.read())

    def read(self) -> Reading:
        """A reading."""
        if self._nvml:
            one = self._nvml
            return Reading(one.watts(), one.celsius(), one.mhz(), one.throttled())
        zones = jetson.temperatures(self._root)
        heat = [degrees for name, degrees in zones.items() if "gpu" in name.lower()]
        return Reading(jetson.watts(self._root), max(heat, default=None), jetson.gpu_mhz(self._root))

    def measure(self, work: Callable[[], T]) -> tuple[T, Energy]:
        """Do some work, and measure what it takes.

        Args:
            work: a function; some tenths of a second at least, since power is read 20 times a second.

        Returns:
            What it returned, and what it took.
        """
        readings: list[tuple[float, Reading]] = []
        ended = threading.Event()

        def sample() -> None:
            while not ended.wait(INTERVAL):
                readings.append((time.perf_counter(), self.read()))

        readings.append((time.perf_counter(), self.read()))
        before = self._counters()
        thread = threading.Thread(target=sample, name="power", daemon=True)
        thread.start()
        start = time.perf_counter()
        try:
            result = work()
            seconds = time.perf_counter() - start
            after = self._counters()
        finally:
            ended.set()
            thread.join()
        readings.append((time.perf_counter(), self.read()))
        joules, events = (
            None if one is None or two is None else two - one for one, two in zip(before, after, strict=True)
        )
        return result, summarize(readings, seconds, joules, ("over-current",) if events else ())

    def _counters(self) -> tuple[float | None, float | None]:
        """Joules since the driver was loaded, and how often a Jetson has reduced its clocks."""
        return self._nvml.joules() if self._nvml else None, jetson.throttle_events(self._root)


def summarize(
    readings: list[tuple[float, Reading]],
    seconds: float,
    joules: float | None = None,
    throttled: tuple[str, ...] = (),
) -> Energy:
    """What readings, each with its time in seconds, say of a stretch of work.

    Args:
        readings: at least one, in order.
        seconds: how long the work took.
        joules: energy by a counter; None: the mean power of the readings times the seconds.
        throttled: reasons that are known already.
    """
    known = [(when, one.watts) for when, one in readings if one.watts is not None]
    watts = _mean(known) if known else None
    if joules is not None:
        watts = joules / seconds
    elif watts is not None:
        joules = watts * seconds
    reasons = dict.fromkeys([*throttled, *(why for _, one in readings for why in one.throttled)])
    return Energy(
        seconds=seconds,
        joules=joules,
        watts=watts,
        celsius=max((one.celsius for _, one in readings if one.celsius is not None), default=None),
        mhz=min((one.mhz for _, one in readings if one.mhz is not None), default=None),
        throttled=tuple(reasons),
    )


def _mean(known: list[tuple[float, float]]) -> float:
    """Mean over time, by the trapezoidal rule; readings are not evenly spaced on a busy machine."""
    span = known[-1][0] - known[0][0]
    if not span:
        return known[0][1]
    areas = ((later - when) * (one + other) / 2 for (when, one), (later, other) in pairwise(known))
    return sum(areas) / span
