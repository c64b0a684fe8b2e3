"""TensorRT's packages: importing them, what to install here, and whether what is installed fits the driver."""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from deploy.backends.engine import TENSORRT
from deploy.backends.tensorrt_gpu.cuda_interface import Device
from deploy.backends.tensorrt_gpu.signs import CUDA_13_BRANCH, Signs, look
from deploy.errors import UserError

EXTRAS = {"tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}
"""First half of the names of edgedistill's extras; the CUDA major follows."""
MAJORS = (12, 13, 14)


def import_tensorrt(backend: str) -> Any:
    """Import the module of a backend.

    Raises:
        UserError: it is missing, cannot be loaded, or is too old.
    """
    module = TENSORRT[backend]
    what = f"backend {backend}: the package {module.replace('_', '-')}"
    try:
        trt = importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == module:
            raise UserError(f"{what} is not installed; {how_to_install(backend, look())}") from error
        # It is installed, but a library that it needs is missing or does not fit.
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{what} cannot be loaded ({why}); install it again") from error
    version = getattr(trt, "__version__", "0")
    if backend == "tensorrt" and int(version.split(".")[0]) < 10:
        raise UserError(f"backend tensorrt: version {version} is too old; install 10.3 or later")
    return trt


def how_to_install(backend: str, signs: Signs) -> str:
    """The command that installs a backend here."""
    if signs.l4t and backend == "tensorrt":
        return (
            "sudo apt install python3-libnvinfer (JetPack's own TensorRT), and make the virtual environment with"
            " python3 -m venv --system-site-packages"
        )
    if signs.cuda_major:
        return f"pip install 'edgedistill[{EXTRAS[backend]}-cu{signs.cuda_major}]'"
    extra = EXTRAS[backend]
    either = f"(driver {CUDA_13_BRANCH} or later; [{extra}-cu12] for earlier ones)"
    return f"pip install 'edgedistill[{extra}-cu13]' {either}"


def check_cuda_major(backend: str, gpu: Device) -> None:
    """Refuse TensorRT from PyPI that was made for a later CUDA than the driver's: its runtime does not start.

    Raises:
        UserError: the message names both versions and what to install.
    """
    driver = int(gpu.driver.split(".")[0])
    found = {major: name for major in MAJORS if (name := _installed(f"{backend}-cu{major}"))}
    if not found or min(found) <= driver:
        return
    major = min(found)
    raise UserError(
        f"backend {backend}: {found[major]} is made for CUDA {major}, the GPU's driver supports {gpu.driver} at most:"
        f" pip uninstall {backend} {backend}-cu{major}, then pip install 'edgedistill[{EXTRAS[backend]}-cu{driver}]',"
        " or update the driver"
    )


def _installed(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return ""
