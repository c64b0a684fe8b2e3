"""Stand-ins for what shows power: /sys of a Jetson, and NVIDIA's management library."""

import ctypes
from pathlib import Path
from types import SimpleNamespace

ORIN = SimpleNamespace(integrated=True, pci="0000:00:00.0")
RTX = SimpleNamespace(integrated=False, pci="0000:0a:00.0")

CONF = """\
# FREQ is in KHz
< POWER_MODEL ID=0 NAME=MAXN >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=2 NAME=15W >
< POWER_MODEL ID=12 NAME=40W >
"""


def write(root: Path, files: dict[str, object]) -> None:
    """Files with a line each."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


def make_jetson(root: Path, milliamperes: int = 1000) -> Path:
    """/sys, /etc and /var of an Orin NX with 5 V · `milliamperes` at its input."""
    monitor, other = "sys/class/hwmon/hwmon1", "sys/class/hwmon/hwmon4"
    write(
        root,
        {
            f"{monitor}/name": "ina3221",
            f"{monitor}/in1_label": "VDD_IN",
            f"{monitor}/in1_input": 5000,
            f"{monitor}/curr1_input": milliamperes,
            f"{monitor}/in2_label": "VDD_CPU_GPU_CV",
            f"{monitor}/in2_input": 5000,
            f"{monitor}/curr2_input": 400,
            f"{monitor}/in7_label": "sum of shunt voltages",
            f"{monitor}/in7_input": 12,
            f"{other}/name": "soctherm_oc",
            f"{other}/oc1_event_cnt": 3,
            f"{other}/oc3_event_cnt": 1,
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
            "sys/class/thermal/thermal_zone0/temp": 51500,
            "sys/class/thermal/thermal_zone1/type": "gpu-thermal",
            "sys/class/thermal/thermal_zone1/temp": 48250,
            "sys/class/thermal/thermal_zone2/type": "cv0-thermal",  # off: cannot be read
            "sys/class/devfreq/17000000.gpu/cur_freq": 612000000,
            "sys/class/devfreq/17000000.gpu/min_freq": 306000000,
            "sys/class/devfreq/17000000.gpu/max_freq": 918000000,
            "var/lib/nvpmodel/status": "pmode:0002 fmode:fanNull",
            "etc/nvpmodel.conf": CONF,
        },
    )
    return root


class FakeNvml:
    """`libnvidia-ml.so.1`: functions write into what they are given, and return an error code.

    `values` has what each writes, or a function that returns it; those that are left out are not supported.
    """

    def __init__(self, **values):
        self.values, self.asked = values, []

    def __getattr__(self, name):
        def call(*arguments):
            self.asked.append((name, arguments[1:-1]))
            if name == "nvmlInit_v2":
                return self.values.get(name, 0)
            if name == "nvmlDeviceGetHandleByPciBusId_v2":
                return 0 if arguments[0] == RTX.pci.encode() else 6
            gpu, *_, answer = arguments
            assert isinstance(gpu, ctypes.c_void_p)
            if name not in self.values:
                return 3  # NVML_ERROR_NOT_SUPPORTED
            value = self.values[name]
            answer._obj.value = value() if callable(value) else value
            return 0

        return call
