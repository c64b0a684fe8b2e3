"""packages.py: TensorRT's packages that do not fit the driver are refused, and what to install fits the machine."""

from dataclasses import replace
from importlib.metadata import PackageNotFoundError

import pytest

from deploy.backends.tensorrt_gpu import packages
from deploy.backends.tensorrt_gpu.packages import check_cuda_major, how_to_install
from deploy.backends.tensorrt_gpu.signs import Signs
from deploy.errors import UserError
from tests.deploy.backends.tensorrt_gpu.gpu_fakes import GPU

OLD = replace(GPU, driver="12.6")


@pytest.fixture
def installed(monkeypatch):
    versions = {}

    def version(name):
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(packages, "version", version)
    return versions


def test_packages_for_a_later_cuda_than_the_drivers(installed):
    installed["tensorrt-rtx-cu13"] = "1.7.1.116"
    check_cuda_major("tensorrt-rtx", GPU)
    check_cuda_major("tensorrt", OLD)  # the system's, or JetPack's: not by pip
    said = (
        r"backend tensorrt-rtx: tensorrt-rtx-cu13 1\.7\.1\.116 is made for CUDA 13, the GPU's driver supports"
        r" 12\.6 at most: pip uninstall tensorrt-rtx tensorrt-rtx-cu13, then pip install 'edgedistill\[rtx-cu12\]'"
    )
    with pytest.raises(UserError, match=said):
        check_cuda_major("tensorrt-rtx", OLD)
    installed["tensorrt-rtx-cu12"] = "1.7.1.116"
    check_cuda_major("tensorrt-rtx", OLD)


@pytest.mark.parametrize(
    ("backend", "signs", "command"),
    [
        ("tensorrt", Signs(driver="550.54.15"), "pip install 'edgedistill[tensorrt-cu12]'"),
        ("tensorrt-rtx", Signs(driver="581.42"), "pip install 'edgedistill[rtx-cu13]'"),
        ("tensorrt", Signs(l4t="36.4.3"), "python3 -m venv --system-site-packages"),
        ("tensorrt", Signs(), "[tensorrt-cu12] for earlier ones"),
    ],
)
def test_how_to_install(backend, signs, command):
    assert command in how_to_install(backend, signs)
