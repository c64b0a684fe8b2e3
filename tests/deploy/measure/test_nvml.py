"""NVIDIA's management library: what is asked, units, and GPUs that do not answer."""

import ctypes

import pytest

from deploy.errors import UserError
from deploy.measure import nvml
from deploy.measure.nvml import Nvml
from tests.deploy.measure.machines import RTX, FakeNvml


def use(monkeypatch, **values):
    fake = FakeNvml(**values)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: fake)
    return fake


def test_units(monkeypatch):
    fake = use(
        monkeypatch,
        nvmlDeviceGetPowerUsage=123456,
        nvmlDeviceGetTotalEnergyConsumption=7_000_000_000,  # more than 32 bits
        nvmlDeviceGetEnforcedPowerLimit=170000,
        nvmlDeviceGetTemperature=61,
        nvmlDeviceGetClockInfo=1740,
        nvmlDeviceGetCurrentClocksThrottleReasons=0x4 | 0x20 | 0x1,
    )
    gpu = Nvml(RTX.pci)
    assert (gpu.watts(), gpu.joules(), gpu.limit_watts()) == (123.456, 7_000_000.0, 170.0)
    assert (gpu.celsius(), gpu.mhz()) == (61, 1740)
    assert gpu.throttled() == ("power limit", "thermal (software)")  # idle is no throttling
    assert ("nvmlDeviceGetTemperature", (nvml.GPU_SENSOR,)) in fake.asked
    assert ("nvmlDeviceGetClockInfo", (nvml.SM_CLOCK,)) in fake.asked


def test_a_gpu_that_does_not_measure(monkeypatch):
    use(monkeypatch)
    gpu = Nvml(RTX.pci)
    assert gpu.watts() is gpu.joules() is gpu.limit_watts() is gpu.celsius() is gpu.mhz() is None
    assert gpu.throttled() == ()


def test_no_library_or_another_gpu(monkeypatch):
    use(monkeypatch)
    with pytest.raises(UserError, match="does not know the GPU 0000:ff"):
        Nvml("0000:ff:00.0")
    use(monkeypatch, nvmlInit_v2=9)
    with pytest.raises(UserError, match="cannot start"):
        Nvml(RTX.pci)
    monkeypatch.undo()
    monkeypatch.setattr(nvml, "LIBRARY", "libnot-here.so.1")
    with pytest.raises(
        UserError, match=r"libnot-here\.so\.1: is not installed; it comes with NVIDIA's driver"
    ):
        Nvml(RTX.pci)
