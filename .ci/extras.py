"""Resolve every extra of pyproject.toml for the Pythons and machines it is meant for, from wheels, installing nothing.

    python .ci/extras.py        (make extras)

Exit code 1: an extra cannot be installed somewhere. Without a package index it says SKIPPED and exits with 0.
"""

import itertools
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import tomllib

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Ubuntu 22.04 (JetPack 6, glibc 2.35) with its Python, and a later Python.
PYTHONS = ("3.10", "3.12")
MACHINES = ("x86_64", "aarch64")
GLIBC = (17, 24, 26, 27, 28, 31, 34, 35)
GROUPS = {
    "CUDA 12": (
        "dask",
        "geo",
        "openvino",
        "quantize",
        "serve",
        "sign",
        "video",
        "cuda12",
        "tensorrt-cu12",
        "rtx-cu12",
    ),
    "CUDA 13": ("cuda13", "tensorrt-cu13", "rtx-cu13"),
}
"""Extras that are resolved at once."""
NOT_RESOLVED = {
    "bench": "for training machines",
    "dev": "installed by `make test` and `make device-test`",
    "hf": "for training machines",
    "mlflow": "for training machines",
    "pycuda": "source only, and needs the CUDA toolkit",
    "smp": "for training machines",
    "train": "installed by `make test`",
    "wandb": "for training machines",
}
# Source distributions that only name other packages or fetch them from NVIDIA's index: their wheels there.
SOURCES = ("tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx-cu13")
WHEELS = {name: f"{name}-bindings" for name in SOURCES}
X86_ONLY = ("rtx-cu12", "rtx-cu13")  # TensorRT-RTX


def requirements(extras: tuple[str, ...]) -> list[str]:
    """The base dependencies and those of the extras; markers aside, for pip takes them from the Python it runs on."""
    found, waiting = list(PROJECT["dependencies"]), [*extras]
    for extra in waiting:
        for requirement in EXTRAS[extra]:
            if own := re.fullmatch(r"edgedistill\[(.+)\]", requirement):
                waiting.append(own[1])
            else:
                name, bounds = re.fullmatch(r"([\w-]+)(.*)", requirement.split(";")[0].strip()).groups()
                found.append(WHEELS.get(name, name) + bounds)
    return found


def resolve(extras: tuple[str, ...], python: str, machine: str) -> dict[str, str] | str:
    """Versions of the packages that pip would install, or its last word."""
    platforms = [
        f"manylinux2014_{machine}",
        f"linux_{machine}",
        *(f"manylinux_2_{n}_{machine}" for n in GLIBC),
    ]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        options = ["--dry-run", "--ignore-installed", "--quiet", "--only-binary", ":all:", "--report", report]
        target = ["--target", folder, "--implementation", "cp", "--python-version", python]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
        where = [f"--platform={name}" for name in platforms]
        done = subprocess.run(
            [*pip, *options, *target, *where, *requirements(extras)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return next((line for line in reversed(done.stderr.splitlines()) if "ERROR" in line), done.stderr)
        installs = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {one["metadata"]["name"].lower(): one["metadata"]["version"] for one in installs}


def main() -> int:
    """Print a line for each combination."""
    assert {*NOT_RESOLVED, *(extra for group in GROUPS.values() for extra in group)} == set(EXTRAS), (
        "an extra is missing here"
    )
    refused = resolve((), PYTHONS[0], MACHINES[0])
    if isinstance(refused, str) and "No matching" not in refused:
        print(f"SKIPPED: no package index ({refused.strip()})")
        return 0
    failed = 0
    for python, machine, (name, extras) in itertools.product(PYTHONS, MACHINES, GROUPS.items()):
        here = tuple(extra for extra in extras if machine == "x86_64" or extra not in X86_ONLY)
        found = resolve(here, python, machine)
        failed += isinstance(found, str)
        print(f"{python} {machine:8} {name}: {found if isinstance(found, str) else _told(found)}", flush=True)
    print(f"extras: {failed} of the groups cannot be installed" if failed else "extras: all can be installed")
    return int(bool(failed))


def _told(found: dict[str, str]) -> str:
    names = ("numpy", "onnxruntime", "cuda-bindings", "openvino")
    shown = {name: version for name, version in found.items() if name in names or name.startswith("tensorrt")}
    return ", ".join(f"{name} {version}" for name, version in sorted(shown.items()))


if __name__ == "__main__":
    sys.exit(main())
