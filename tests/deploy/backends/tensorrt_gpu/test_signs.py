"""signs.py: what files of the system say about an NVIDIA GPU, and what that means for a GPU that CUDA does not find."""

import pytest

from deploy.backends.tensorrt_gpu.signs import Signs, cuda_packages, look, remedy

PC = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version:  gcc 12\n"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.00  Release Build  (buildbrain)  Fri Aug 1\n"
ORIN = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37\n"


def write(root, name, text=""):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_nothing(tmp_path):
    assert look(tmp_path) == Signs()
    assert not Signs().any
    assert remedy(Signs()) == ""


def test_a_pc(tmp_path):
    write(tmp_path, "proc/driver/nvidia/version", PC)
    write(tmp_path, "dev/nvidia0")
    for number, (vendor, kind) in enumerate(
        [("0x10de", "0x030200"), ("0x10de", "0x040300"), ("0x8086", "0x030000")]
    ):
        write(tmp_path, f"sys/bus/pci/devices/{number}/vendor", f"{vendor}\n")
        write(tmp_path, f"sys/bus/pci/devices/{number}/class", f"{kind}\n")
    signs = look(tmp_path)
    assert signs == Signs("550.54.15", "", gpu=True, nodes=("/dev/nvidia0",))
    assert cuda_packages(signs) == "pip install 'edgedistill[cuda12]'"


def test_sound_of_nvidia_and_graphics_of_others_are_no_gpu(tmp_path):
    for number, (vendor, kind) in enumerate([("0x10de", "0x040300"), ("0x1002", "0x030000")]):
        write(tmp_path, f"sys/bus/pci/devices/{number}/vendor", f"{vendor}\n")
        write(tmp_path, f"sys/bus/pci/devices/{number}/class", f"{kind}\n")
    assert not look(tmp_path).any


def test_jetsons(tmp_path):
    write(tmp_path, "etc/nv_tegra_release", ORIN)
    orin = look(tmp_path)
    assert (orin.l4t, orin.cuda_major) == ("36.4.3", 12)
    write(tmp_path, "proc/driver/nvidia/version", OPEN)
    write(tmp_path, "etc/nv_tegra_release", ORIN.replace("R36", "R38"))
    thor = look(tmp_path)
    assert (thor.l4t, thor.driver, thor.cuda_major) == ("38.4.3", "580.00", 13)


@pytest.mark.parametrize(
    ("signs", "advice"),
    [
        (Signs(container=True, gpu=True), "started with --gpus all (on a Jetson with --runtime nvidia)"),
        (Signs(gpu=True), "the driver of the GPU is not loaded"),
        (
            Signs(l4t="36.4.3", nodes=("/proc/1/mem-of-nobody",)),
            "cannot be opened by this user: sudo usermod",
        ),
        (Signs(driver="550.54.15", gpu=True), "CUDA_VISIBLE_DEVICES is '7': unset it, or name a GPU"),
    ],
)
def test_remedies(signs, advice, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert advice in remedy(signs)


def test_the_major_is_asked_for_where_nothing_shows_it():
    assert "[cuda13]" in cuda_packages(Signs())
    assert "[cuda12]" in cuda_packages(Signs())
