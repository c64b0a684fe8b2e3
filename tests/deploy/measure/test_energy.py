"""Energy of a stretch of work, from a Jetson's power monitors or a GPU's counter."""

import ctypes
import itertools
import threading
import time

import pytest

from deploy.measure import energy
from deploy.measure.energy import Meter, Reading, summarize
from tests.deploy.measure.machines import ORIN, RTX, FakeNvml, make_jetson, write


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(energy, "INTERVAL", 0.005)


def test_a_jetson(tmp_path):
    root = make_jetson(tmp_path, milliamperes=1000)
    meter = Meter(ORIN, root)
    assert meter.why_not == ""
    state = meter.state()
    assert (state.mode, state.clocks_locked, state.rails["VDD_IN"]) == ("2 (15W)", False, 5.0)

    def work():
        hot = {"sys/class/hwmon/hwmon4/oc1_event_cnt": 5, "sys/class/thermal/thermal_zone1/temp": 80000}
        write(root, hot)
        time.sleep(0.02)
        return "done"

    result, taken = meter.measure(work)
    assert result == "done"
    assert taken.watts == pytest.approx(5)
    assert taken.joules == pytest.approx(5 * taken.seconds)
    assert taken.joules_per(10) == pytest.approx(taken.joules / 10)
    assert (taken.celsius, taken.mhz, taken.throttled) == (80, 612, ("over-current",))


def test_a_gpu_counts_its_energy(monkeypatch):
    counter, power = itertools.count(1000, 500), itertools.count(100000, 1000)
    fake = FakeNvml(
        nvmlDeviceGetTotalEnergyConsumption=lambda: next(counter),
        nvmlDeviceGetPowerUsage=lambda: next(power),
        nvmlDeviceGetEnforcedPowerLimit=170000,
        nvmlDeviceGetCurrentClocksThrottleReasons=0x40,
    )
    monkeypatch.setattr(ctypes, "CDLL", lambda name: fake)
    meter = Meter(RTX)
    assert meter.state().mode == "limit 170 W"
    _, taken = meter.measure(lambda: time.sleep(0.02))
    assert taken.joules == 0.5  # of the counter, not of the readings
    assert taken.watts == pytest.approx(0.5 / taken.seconds)
    assert taken.throttled == ("thermal (hardware)",)
    assert taken.celsius is None


def test_nothing_measures(tmp_path, monkeypatch):
    assert Meter(ORIN, tmp_path).why_not == "this board shows no power monitors in /sys"
    monkeypatch.setattr("deploy.measure.nvml.LIBRARY", "libnot-here.so.1")
    meter = Meter(RTX, tmp_path)
    assert "is not installed" in meter.why_not
    _, taken = meter.measure(lambda: None)
    assert taken.joules is taken.watts is taken.joules_per(3) is None
    assert taken.seconds > 0


def test_work_that_fails_leaves_no_thread(tmp_path):
    meter = Meter(ORIN, make_jetson(tmp_path))
    with pytest.raises(ZeroDivisionError):
        meter.measure(lambda: 1 / 0)
    assert not any(thread.name == "power" for thread in threading.enumerate())


def test_readings_that_are_not_even():
    """A second at 10 W, then a tenth of a second from 10 to 30 W: the mean is over time, not over readings."""
    readings = [(0.0, Reading(10, None, 900)), (1.0, Reading(10, 50, 300)), (1.1, Reading(30, 40, None))]
    taken = summarize(readings, 1.1)
    assert taken.watts == pytest.approx((10 * 1 + 20 * 0.1) / 1.1)
    assert taken.joules == pytest.approx(12)
    assert (taken.celsius, taken.mhz) == (50, 300)
    assert summarize([(0.0, Reading(7, None, None))], 2.0).joules == 14
