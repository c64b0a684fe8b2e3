"""benchmarks/gpu_check.sh: skipped for real without a GPU; with one, its steps by a Python that only notes them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.backends.tensorrt_gpu.signs import look
from tests.conftest import ROOT


def executable(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def check(*arguments: str, root: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [root / "benchmarks" / "gpu_check.sh", *arguments]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(look().any, reason="this machine has an NVIDIA GPU")
@pytest.mark.parametrize("bundle", [False, True])
def test_without_a_gpu_it_is_skipped_and_nothing_is_installed(tmp_path, bundle):
    executable(tmp_path / "nvidia-smi", "#!/bin/sh\nexit 9\n")
    (tmp_path / "manifest.json").touch()
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = check(*[str(tmp_path)] * bundle, PATH=path, PYTHON=sys.executable, VENV=str(tmp_path / "venv"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("SKIPPED: no sign of an NVIDIA GPU")
    assert done.stdout.count("\n") == 1
    assert not (tmp_path / "venv").exists()


def test_a_folder_that_is_no_bundle(tmp_path):
    done = check(str(tmp_path), PYTHON=sys.executable)
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path}: is no bundle\n")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A copy of the scripts, with a Python that notes what it is asked to do, and where the notes are."""
    python = executable(
        tmp_path / "python",
        f"""#!/bin/bash
case "$1 $2" in
    "-c "*signs*) echo "$SIGNS"; exit ;;
    "-c "*why_not*) echo "$WHY_NOT"; exit ;;
esac
echo "$@" >>{tmp_path}/calls
case "$1 $2" in
    "-m venv") mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
    "-c "*) exit "$HAS_TENSORRT" ;;
    "deploy/"* | "distill/"*) exit 1 ;;  # a gate fails
esac
""",
    )
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "benchmarks", root / "benchmarks")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHON", str(python))
    monkeypatch.setenv("WHY_NOT", "")
    return root, tmp_path / "calls"


@pytest.mark.parametrize(
    ("smi", "signs", "extra"),
    [
        ("echo 'NVIDIA-SMI 560.35 Driver Version: 560.35 CUDA Version: 12.6'", "pc 12", "rtx-cu12"),
        ("echo 'Driver Version: 581.42 CUDA Version: 13.0'", "none 13", "rtx-cu13"),  # WSL
        ("exit 9", "pc 12", "rtx-cu12"),
    ],
)
def test_it_installs_trains_and_measures(machine, tmp_path, smi, signs, extra):
    executable(tmp_path / "nvidia-smi", f"#!/bin/sh\n{smi}\n")
    root, calls = machine
    bundle = root / "runs" / "gpu-check" / "quick" / "student.bundle"
    bundle.mkdir(parents=True)
    (bundle / "manifest.json").touch()
    done = check("--runs", "7", root=root, SIGNS=signs, HAS_TENSORRT="1")
    assert (done.returncode, done.stderr) == (0, "")
    out = "runs/gpu-check/quick"
    assert calls.read_text().splitlines() == [
        "-m venv --system-site-packages runs/gpu-check/venv",
        "-c import tensorrt_rtx",
        f"-m pip install --quiet -e .[train,{extra}]",
        f"distill/run.py quick --out {out} --resume",
        f"deploy/build_engine.py {out}/student.bundle --backend onnxruntime --precision fp16",
        f"benchmarks/gpu.py {out}/student.bundle --backend tensorrt-rtx --json {out}/gpu.json --runs 7",
    ]


def test_on_a_jetson_a_bundle_is_checked_with_the_systems_tensorrt_and_without_training(machine, tmp_path):
    executable(tmp_path / "nvidia-smi", "#!/bin/sh\nexit 9\n")
    root, calls = machine
    (tmp_path / "manifest.json").touch()
    for _ in range(2):
        done = check(str(tmp_path), root=root, SIGNS="jetson 12", HAS_TENSORRT="0")
        assert (done.returncode, done.stderr) == (0, "")
    checks = [
        f"deploy/build_engine.py {tmp_path} --backend onnxruntime --precision fp16",
        f"benchmarks/gpu.py {tmp_path} --backend tensorrt --json runs/gpu-check/gpu.json",
    ]
    assert calls.read_text().splitlines() == [
        "-m venv --system-site-packages runs/gpu-check/venv",
        "-c import tensorrt",
        "-m pip install --quiet -e .[cuda12]",
        *checks,
        *checks,  # installed once
    ]


def test_a_gpu_that_cannot_be_used_is_an_error(machine, tmp_path):
    executable(tmp_path / "nvidia-smi", "#!/bin/sh\nexit 9\n")
    root, calls = machine
    (tmp_path / "manifest.json").touch()
    done = check(str(tmp_path), root=root, SIGNS="jetson 12", HAS_TENSORRT="0", WHY_NOT="driver too old")
    assert done.returncode == 2
    assert done.stderr == "error: the NVIDIA GPU of this machine cannot be used: driver too old\n"
    assert "gpu.py" not in calls.read_text()


def test_it_is_a_sound_shell_script():
    shellcheck = shutil.which("shellcheck")
    if not shellcheck:
        pytest.skip("shellcheck is not installed here (apt install shellcheck)")
    done = subprocess.run([shellcheck, "benchmarks/gpu_check.sh"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
