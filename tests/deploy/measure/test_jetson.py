"""What a Jetson's /sys shows, on files like those of an Orin NX and of an AGX Orin."""

import pytest

from deploy.measure import jetson
from tests.deploy.measure.machines import make_jetson, write


@pytest.fixture
def root(tmp_path):
    return make_jetson(tmp_path)


def test_rails_and_the_whole_module(root):
    assert jetson.rails(root) == {"VDD_IN": 5.0, "VDD_CPU_GPU_CV": 2.0}
    assert jetson.watts(root) == 5.0


def test_an_agx_module_has_no_input_rail(root):
    (root / "sys/class/hwmon/hwmon1/in1_label").write_text("VDD_GPU_SOC\n")
    assert jetson.watts(root) == 7.0


def test_power_mode_and_clocks(root):
    assert jetson.power_mode(root) == "2 (15W)"
    assert jetson.clocks_locked(root) is False
    assert jetson.gpu_mhz(root) == 612
    locked = {"sys/class/devfreq/17000000.gpu/min_freq": 918000000}
    write(root, locked | {"var/lib/nvpmodel/status": "pmode:0012"})
    assert jetson.clocks_locked(root) is True
    assert jetson.power_mode(root) == "12 (40W)"
    (root / "etc/nvpmodel.conf").unlink()
    assert jetson.power_mode(root) == "12"


def test_temperatures_and_throttling(root):
    assert jetson.temperatures(root) == {"cpu-thermal": 51.5, "gpu-thermal": 48.25}
    assert jetson.throttle_events(root) == 4


def test_a_pc_shows_nothing(tmp_path):
    assert jetson.rails(tmp_path) == jetson.temperatures(tmp_path) == {}
    assert jetson.power_mode(tmp_path) == ""
    for ask in (jetson.watts, jetson.clocks_locked, jetson.gpu_mhz, jetson.throttle_events):
        assert ask(tmp_path) is None


def test_files_that_say_nothing_are_left_out(root):
    (root / "sys/class/hwmon/hwmon1/curr1_input").write_text("")
    (root / "sys/class/devfreq/17000000.gpu/cur_freq").write_text("nonsense")
    assert jetson.rails(root) == {"VDD_CPU_GPU_CV": 2.0}
    assert jetson.gpu_mhz(root) is None
