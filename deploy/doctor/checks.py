"""What `edgedistill doctor` looks at.

Whatever may crash, such as a package compiled for another CPU or a broken driver, is tried in a process of its own.
"""

import json
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from deploy.backends.engine import CPU, ORT_GPU, TENSORRT
from deploy.backends.onnxruntime_gpu import OTHER_PACKAGE
from deploy.backends.tensorrt_gpu.cuda_interface import Device
from deploy.backends.tensorrt_gpu.packages import check_cuda_major, how_to_install
from deploy.backends.tensorrt_gpu.signs import Signs, look
from deploy.errors import UserError
from deploy.fresh_python import python_command
from deploy.measure.machine import describe

SECONDS = 60
"""How long one attempt may take."""
PACKAGES = {
    "onnx": ("edgedistill[quantize]", "INT8 and FP16 models, lint"),
    "rasterio": ("edgedistill[geo]", "GeoTIFFs, polygons"),
    "cryptography": ("edgedistill[sign]", "signatures"),
    "cv2": ("edgedistill[video]", "videos and cameras"),
    **dict.fromkeys(("fastapi", "uvicorn", "prometheus_client"), ("edgedistill[serve]", "serve")),
    **dict.fromkeys(("dask", "distributed"), ("edgedistill[dask]", "predict-many")),
    **dict.fromkeys(("xarray", "rioxarray"), ("edgedistill[dask]", "edgedistill.raster")),
    "matplotlib": ("edgedistill[bench]", "report, plots of inspect and compare"),
    "scipy": ("edgedistill[bench]", "benchmarks"),
    "pandas": ("pandas", "to_pandas of results"),
    **dict.fromkeys(("torch", "timm"), ("edgedistill[train]", "training, on Python 3.11 or later")),
    "jinja2": ("edgedistill[train]", "report"),
    "argcomplete": ("edgedistill[train]", "completion"),
    "transformers": ("edgedistill[hf]", "networks hf/…"),
    "segmentation_models_pytorch": ("edgedistill[smp]", "networks smp/…"),
    "wandb": ("edgedistill[wandb]", "--tracker wandb"),
    "mlflow": ("edgedistill[mlflow]", "--tracker mlflow"),
}
"""Optional packages by their module: what pip installs for it, and what it is for."""
NO_GPU = "needs an NVIDIA GPU, none seen"
ORT_PACKAGES = ("onnxruntime", "onnxruntime-gpu")
"""Packages that hold the module `onnxruntime`; one of them at a time."""
_ROOT = Path(__file__).resolve().parents[2]
_GPUS = """
import json
from deploy.backends.tensorrt_gpu.cuda import probe, why_not
gpus = []
while gpu := probe(len(gpus)):
    gpus.append(vars(gpu))
print(json.dumps([gpus, "" if gpus else why_not()]))
"""


class Part(msgspec.Struct, frozen=True):
    """Something that works, or why it does not."""

    name: str
    works: bool
    detail: str
    """Version, or the reason; one line."""
    remedy: str = ""
    """What to do, where something can be done."""


class Report(msgspec.Struct, frozen=True):
    """Everything that was found."""

    machine: dict[str, object]
    """As `deploy.measure.machine.describe` says."""
    nvidia: dict[str, object]
    """What the system shows of NVIDIA: `deploy.backends.tensorrt_gpu.signs.Signs`."""
    gpus: list[dict[str, Any]]
    """GPUs that CUDA can use: `deploy.backends.tensorrt_gpu.cuda_interface.Device`."""
    backends: list[Part]
    packages: list[Part]


def examine() -> Report:
    """Look at everything; takes some seconds."""
    signs = look()
    gpus, why = _gpus()
    gpu = Device(**gpus[0]) if gpus else None
    cpu = [_cpu_backend(name) for name in CPU]
    return Report(
        describe(),
        asdict(signs),
        gpus,
        [
            *cpu,
            *(_onnxruntime_gpu(name, cpu[0], signs, gpu, why) for name in ORT_GPU),
            *(_tensorrt(name, signs, gpu, why) for name in TENSORRT),
        ],
        [_package(module, *PACKAGES[module]) for module in PACKAGES],
    )


def attempt(code: str, arguments: Sequence[str] = ()) -> tuple[bool, str]:
    """Run Python code in a process of its own.

    Returns:
        Whether it ended well, and the last line that it printed, or why it failed.
    """
    try:
        done = subprocess.run(
            python_command(f"sys.path.insert(0, {str(_ROOT)!r})\n{code}", arguments),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"has not answered within {SECONDS} s"
    if done.returncode < 0:
        return False, f"crashes this Python ({signal.Signals(-done.returncode).name})"
    told = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    return done.returncode == 0, told[-1] if told else f"exit code {done.returncode}"


def _gpus() -> tuple[list[dict[str, Any]], str]:
    """The GPUs that CUDA can use, or why there is none."""
    worked, told = attempt(_GPUS)
    if not worked:
        return [], f"CUDA: {told}"
    gpus, why = json.loads(told)
    return gpus, why


def _cpu_backend(name: str) -> Part:
    if find_spec(name) is None:
        return Part(name, False, "not installed", f"pip install {name}")
    shown = f"import {name}; print({name}.__version__)"
    if name == "onnxruntime":
        shown = f"import {name} as ort; print(ort.__version__, ', '.join(ort.get_available_providers()))"
    worked, told = attempt(shown)
    if name == "onnxruntime" and len(names := [one for one in ORT_PACKAGES if _has(one)]) > 1:
        return Part(
            name,
            False,
            f"{told}: {' and '.join(names)} are both installed, and overwrite each other's files",
            f"pip uninstall -y {' '.join(names)}, then pip install one of them (onnxruntime-gpu for a GPU)",
        )
    return Part(name, worked, told, "" if worked else f"pip install --force-reinstall {name}")


def _onnxruntime_gpu(name: str, onnxruntime: Part, signs: Signs, gpu: Device | None, why: str) -> Part:
    """A backend that needs the package onnxruntime-gpu, CUDA's libraries and a GPU."""
    if gpu is None:
        return Part(name, False, f"no usable NVIDIA GPU ({why})" if signs.any else NO_GPU)
    if not onnxruntime.works or ORT_GPU[name] not in onnxruntime.detail:
        return Part(name, False, f"needs onnxruntime-gpu; here is {onnxruntime.detail}", OTHER_PACKAGE)
    worked, told = attempt(
        "import onnxruntime\n"
        "from deploy.backends.onnxruntime_gpu import missing_library\n"
        "if why := missing_library(sys.argv[1], onnxruntime): sys.exit(why)\n"
        "print(onnxruntime.__version__)",
        [name],
    )
    return Part(name, worked, told)


def _has(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _tensorrt(name: str, signs: Signs, gpu: Device | None, why: str) -> Part:
    """A TensorRT backend. That of RTX compiles for other machines even without a GPU."""
    if find_spec(TENSORRT[name]) is None:
        wanted = gpu is not None or signs.any or name == "tensorrt-rtx"
        if not wanted:
            return Part(name, False, f"not installed; {NO_GPU}")
        return Part(name, False, "not installed", how_to_install(name, signs))
    worked, told = attempt(
        "from deploy.backends.tensorrt_gpu.packages import import_tensorrt\n"
        "print(import_tensorrt(sys.argv[1]).__version__)",
        [name],
    )
    if not worked:
        return Part(name, False, told.removeprefix("deploy.errors.UserError: "), how_to_install(name, signs))
    if gpu is not None:
        try:
            check_cuda_major(name, gpu)
        except UserError as error:
            return Part(name, False, f"{told}: {error}")
        return Part(name, True, told)
    compiles = name == "tensorrt-rtx"
    here = "compiles for other machines, runs nothing here" if compiles else "cannot be used"
    return Part(name, compiles, f"{told}: {here}: no usable NVIDIA GPU ({why})")


def _package(module: str, package: str, purpose: str) -> Part:
    found = find_spec(module) is not None
    detail = purpose if found else f"not installed ({purpose})"
    return Part(module, found, detail, "" if found else f"pip install '{package}'")
