"""Power, clocks and temperature of an NVIDIA GPU in a PC or server, by the driver's management library (NVML).

It comes with the driver, so nothing is installed. Jetsons lack most of it: see `deploy.measure.jetson`.
Source: NVIDIA, NVML API reference, "Device Queries". Not run on a GPU here: tests check the calls on a stand-in.
"""

import ctypes
from typing import Any

from deploy.errors import UserError

LIBRARY = "libnvidia-ml.so.1"
SM_CLOCK, GPU_SENSOR = 1, 0
"""NVML_CLOCK_SM and NVML_TEMPERATURE_GPU."""
REASONS = {
    0x0000000000000004: "power limit",
    0x0000000000000008: "hardware slowdown",
    0x0000000000000020: "thermal (software)",
    0x0000000000000040: "thermal (hardware)",
    0x0000000000000080: "power brake",
}
"""Bits of nvmlClocksEventReason that mean that clocks are lower than they could be; idle and user settings are not."""


class Nvml:
    """One GPU.

    Args:
        pci: its address, as in `deploy.backends.tensorrt_gpu.cuda_interface.Device.pci`.

    Raises:
        UserError: there is no such library, or it does not know the GPU, as on a Jetson.
    """

    def __init__(self, pci: str) -> None:
        try:
            self._library: Any = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise UserError(f"{LIBRARY}: is not installed; it comes with NVIDIA's driver") from error
        if self._library.nvmlInit_v2():
            raise UserError(f"{LIBRARY}: cannot start; install the driver again")
        self._gpu = ctypes.c_void_p()
        if self._library.nvmlDeviceGetHandleByPciBusId_v2(pci.encode(), ctypes.byref(self._gpu)):
            raise UserError(f"{LIBRARY}: does not know the GPU {pci}")

    def watts(self) -> float | None:
        """Power of the whole board; None where the GPU does not measure it."""
        milliwatts = self._ask("nvmlDeviceGetPowerUsage", ctypes.c_uint())
        return None if milliwatts is None else milliwatts / 1000

    def joules(self) -> float | None:
        """Energy since the driver was loaded; None before Volta."""
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong())
        return None if millijoules is None else millijoules / 1000

    def limit_watts(self) -> float | None:
        """The power that the board may take."""
        milliwatts = self._ask("nvmlDeviceGetEnforcedPowerLimit", ctypes.c_uint())
        return None if milliwatts is None else milliwatts / 1000

    def celsius(self) -> float | None:
        """Temperature of the GPU."""
        return self._ask("nvmlDeviceGetTemperature", ctypes.c_uint(), GPU_SENSOR)

    def mhz(self) -> float | None:
        """Clock of the multiprocessors now."""
        return self._ask("nvmlDeviceGetClockInfo", ctypes.c_uint(), SM_CLOCK)

    def throttled(self) -> tuple[str, ...]:
        """Why the clocks are lower than they could be; empty if they are not, or if that is unknown."""
        bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong()) or 0
        return tuple(words for bit, words in REASONS.items() if int(bits) & bit)

    def _ask(self, function: str, answer: Any, *arguments: int) -> float | None:
        """A value that a function writes; None where the GPU or the library does not have it."""
        call = getattr(self._library, function, None)
        if call is None or call(self._gpu, *arguments, ctypes.byref(answer)):
            return None
        return answer.value
