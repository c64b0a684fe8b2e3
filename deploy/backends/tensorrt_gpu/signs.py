"""What of NVIDIA the system itself shows, without CUDA: it tells why CUDA finds no GPU, and what to do about it."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from deploy.host import read_text

CUDA_13_BRANCH = 580
"""The first branch of the driver that runs programs made for CUDA 13; the earlier ones from 525 on run CUDA 12."""
CUDA_13_L4T = 38
"""Jetson Linux of JetPack 7; that of JetPack 6 is 36."""
NODES = ("/dev/nvidia0", "/dev/nvgpu", "/dev/nvhost-gpu", "/dev/nvhost-ctrl-gpu")


@dataclass(frozen=True)
class Signs:
    """What the system shows; "" is nothing."""

    driver: str = ""
    """Version of the loaded kernel module, such as "580.95.05"."""
    l4t: str = ""
    """Version of Jetson Linux, such as "36.4.3"."""
    gpu: bool = False
    """Whether the PCI bus has a GPU of NVIDIA."""
    nodes: tuple[str, ...] = ()
    """Device files through which programs reach the GPU."""
    container: bool = False

    @property
    def any(self) -> bool:
        """Whether there is, or should be, a GPU."""
        return bool(self.driver or self.l4t or self.gpu or self.nodes)

    @property
    def cuda_major(self) -> int | None:
        """CUDA major of the newest packages that run here; None where the system does not show it."""
        if self.driver:
            return 13 if int(self.driver.split(".")[0]) >= CUDA_13_BRANCH else 12
        if self.l4t:
            return 13 if int(self.l4t.split(".")[0]) >= CUDA_13_L4T else 12
        return None


def look(root: Path = Path("/")) -> Signs:
    """Look at the system's files below `root`."""
    driver = re.search(r"Kernel Module.*?\s(\d+(\.\d+)+)\s", _text(root, "proc/driver/nvidia/version"))
    l4t = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", _text(root, "etc/nv_tegra_release"))
    containers = ("/.dockerenv", "/run/.containerenv")
    return Signs(
        driver[1] if driver else "",
        f"{l4t[1]}.{l4t[2]}" if l4t else "",
        any(_is_gpu(device) for device in (root / "sys/bus/pci/devices").glob("*")),
        tuple(name for name in NODES if (root / name[1:]).exists()),
        any((root / name[1:]).exists() for name in containers),
    )


def cuda_packages(signs: Signs) -> str:
    """What to install for CUDA."""
    if signs.cuda_major:
        return f"pip install 'edgedistill[cuda{signs.cuda_major}]'"
    return f"pip install 'edgedistill[cuda13]' (driver {CUDA_13_BRANCH} or later; [cuda12] for earlier ones)"


def remedy(signs: Signs) -> str:
    """What to do where the CUDA packages are installed, but find no driver or no GPU."""
    if not signs.any and not signs.container:
        return ""
    if locked := [name for name in signs.nodes if not os.access(name, os.R_OK | os.W_OK)]:
        return f"{locked[0]} cannot be opened by this user: sudo usermod -aG video,render $USER, and log in again"
    if signs.container and not signs.nodes:
        return (
            "a container sees a GPU only if it is started with --gpus all (on a Jetson with --runtime nvidia)"
        )
    if signs.gpu and not signs.driver:
        return "the driver of the GPU is not loaded: install it, or start the computer again"
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return f"CUDA_VISIBLE_DEVICES is {visible!r}: unset it, or name a GPU"
    return "edgedistill doctor shows what is missing"


def _text(root: Path, name: str) -> str:
    return read_text(str(root / name))


def _is_gpu(device: Path) -> bool:
    """Whether a PCI device is a display or 3D controller of NVIDIA."""
    kind = read_text(str(device / "class"))
    return read_text(str(device / "vendor")).strip() == "0x10de" and kind.startswith("0x03")
