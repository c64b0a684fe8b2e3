"""Set-up shared by all tests: one thread per process, no network, and real data where there is some."""

import atexit
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from tempfile import mkdtemp

# Before numpy, torch or a library of the Hugging Face hub is imported. Tiny networks gain nothing from more
# threads, and several processes that each claim every core slow one another down by far more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # some tests import ONNX Runtime themselves
if "EDGEDISTILL_CACHE" not in os.environ:  # those that run the tests at once inherit it
    os.environ["EDGEDISTILL_CACHE"] = mkdtemp(prefix="edgedistill-cache-")
    atexit.register(shutil.rmtree, os.environ["EDGEDISTILL_CACHE"], ignore_errors=True)
if "EDGEDISTILL_STATE" not in os.environ:
    os.environ["EDGEDISTILL_STATE"] = mkdtemp(prefix="edgedistill-state-")
    atexit.register(shutil.rmtree, os.environ["EDGEDISTILL_STATE"], ignore_errors=True)

from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parents[1]
"""The repository."""

# In the background of a shell, or under nohup, signals are ignored, and so they would be by the commands under test.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

# A slow machine is not a failure, and CI must not fail by chance: there every run draws the same examples.
hypothesis.settings.register_profile("edgedistill", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("edgedistill")


def run_python(code: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, with `cwd` as first entry of its path."""
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120)


def reason_to_skip(root: str | None, sets: tuple[str, ...]) -> str | None:
    """Say why tests on the real data `sets` cannot run with EDGEDISTILL_DATA=`root`; None when they can."""
    if not root:
        return "EDGEDISTILL_DATA is not set"
    missing = [name for name in sets or (".",) if not (Path(root) / name).is_dir()]
    return f"no folder {Path(root) / missing[0]} (EDGEDISTILL_DATA={root})" if missing else None


SLOW = 300
"""How many others a slow test takes the time of, about."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that parallel processes end at about the same time (with --no-loadscope-reorder)."""
    length = Counter[Path]()
    for item in items:
        length[item.path] += SLOW if item.get_closest_marker("slow") else 1
    items.sort(key=lambda item: -length[item.path])  # those of one file stay in order


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a `realdata` test whose data are missing."""
    for marker in item.iter_markers("realdata"):
        if reason := reason_to_skip(os.environ.get("EDGEDISTILL_DATA"), marker.args):
            pytest.skip(reason)


@pytest.fixture(autouse=True)
def warnings_of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is warned of once in a process is warned of in each test, so that none depends on those before."""
    monkeypatch.setattr("deploy.errors._WARNED", set())


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder EDGEDISTILL_DATA, one real data set per sub-folder; skips without it."""
    root = os.environ.get("EDGEDISTILL_DATA")
    if reason := reason_to_skip(root, ()):
        pytest.skip(reason)
    return Path(str(root)).resolve()


@pytest.fixture(params=["rasterio", "tifffile"])
def tiff_library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The library that reads TIFF files of many bands: rasterio, or tifffile where rasterio is not installed."""
    if request.param == "tifffile":
        monkeypatch.setattr("deploy.files.tiff.find_spec", lambda name: name == "tifffile" or None)
    return request.param
