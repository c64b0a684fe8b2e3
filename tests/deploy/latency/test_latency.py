"""Latency measurements: the arithmetic on made-up timings, and a fresh process on a real bundle."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from deploy.bundle.manifest import GOLDEN
from deploy.errors import UserError
from deploy.latency import latency
from deploy.loading import load
from tests.conftest import ROOT
from tests.deploy.tiny import SPECS, make_bundle, make_image

IMAGE = np.zeros((2, 2, 1), np.uint8)


def counting(log, name="model"):
    """A model whose nth call claims to have taken n ms, a tenth of it before and two tenths after the engine."""

    def model(_):
        log.append(name)
        n = log.count(name)
        timings = SimpleNamespace(
            total_ms=n, preprocess_ms=0.1 * n, engine_ms=0.7 * n, postprocess_ms=0.2 * n
        )
        return SimpleNamespace(timings=timings)

    return model


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latency") / "bundle"
    make_bundle(folder)
    return folder


def test_statistics_are_those_of_the_timings():
    log = []
    stats = latency.measure(counting(log), IMAGE, runs=4, warmup=3)
    counted = [5, 6, 7, 8]  # 3 to warm up and 1 to settle do not count
    assert len(log) == 8
    assert stats.runs == 4
    assert (stats.total.p50, stats.total.min, stats.total.mean) == (6.5, 5, 6.5)
    assert stats.total.p90 == pytest.approx(np.percentile(counted, 90))
    assert stats.total.p99 == pytest.approx(np.percentile(counted, 99))
    assert stats.total.std == pytest.approx(np.std(counted))
    assert stats.preprocess.p50 == pytest.approx(0.65)
    assert stats.engine.p50 == pytest.approx(4.55)
    assert stats.postprocess.p50 == pytest.approx(1.3)


def test_models_take_turns():
    log = []
    models = [(counting(log, name), IMAGE) for name in "ab"]
    stats = latency.measure_interleaved(models, runs=5, warmup=0, block=3)
    assert "".join(log) == "aaaa" + "bbbb" + "aaa" + "bbb"  # one call in each block is to settle
    assert [each.runs for each in stats] == [5, 5]


def test_throughput_is_runs_over_wall_clock(monkeypatch):
    clock = iter([0.0, 2.0, 10.0, 13.0])  # two blocks, of 2 s and 3 s
    monkeypatch.setattr(latency.time, "perf_counter", lambda: next(clock))
    (stats,) = latency.measure_interleaved([(counting([]), IMAGE)], runs=20, warmup=0, block=10)
    assert stats.images_per_second == 4


@pytest.mark.parametrize(("runs", "warmup"), [(0, 0), (-1, 5), (5, -1)])
def test_impossible_counts_are_refused(runs, warmup):
    with pytest.raises(UserError, match="at least 1 run"):
        latency.measure(counting([]), IMAGE, runs, warmup)


def test_real_model(bundle):
    stats = latency.measure(load(bundle, threads=1), make_image(), runs=3, warmup=1)
    assert 0 < stats.engine.p50 <= stats.total.p50 <= stats.total.p99
    assert stats.images_per_second > 0


def test_cold_start_measures_the_child_and_not_its_parent(bundle):
    ballast = np.ones(400_000_000, np.uint8)  # far more than inference needs
    cold = latency.cold_start(bundle, make_image(), threads=1, inferences=3)
    assert 10e6 < cold.peak_rss_bytes < ballast.nbytes
    assert 0 < cold.import_s + cold.load_s < cold.first_result_s
    assert cold.inferences == 3


START = """
import sys
def rss():
    with open("/proc/self/status") as status:
        return int(status.read().split("VmRSS:")[1].split()[0]) / 1024
bare = rss()
import numpy
from deploy.loading import load
model = load(sys.argv[1], sys.argv[2])
for _ in range(3):
    model(numpy.zeros((32, 48, 3), numpy.uint8))
names = ("cv2", "importlib.metadata", "onnx", "onnxruntime", "openvino", "rich", "torch")
print(model.engine.name.split()[0], f"{rss() - bare:.0f}", *(name for name in names if name in sys.modules))
"""


def started(bundle, backend):
    """The backend that a fresh process runs, its memory in MB above the interpreter's, and what it imported."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the system does not report memory in /proc")
    command = [sys.executable, "-c", START, str(bundle), backend]
    printed = subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=120
    ).stdout
    backend, memory, *imported = printed.split()
    return backend, int(memory), imported


def test_the_base_process_is_small(bundle):
    assert started(bundle, "onnxruntime")[2] == ["onnxruntime"]
    assert started(bundle, "onnxruntime")[1] < 80


def test_a_remembered_choice_imports_its_backend_only(tmp_path):
    make_bundle(tmp_path / "bundle")
    load(tmp_path / "bundle")  # measures and remembers
    backend, _, imported = started(tmp_path / "bundle", "auto")
    assert imported == [backend]


def test_cold_start_runs_what_it_is_told(bundle):
    for choice, message in (
        ({"precision": "int8"}, "has no int8 model"),
        ({"backend": "abacus"}, "unknown backend 'abacus'"),
        ({"threads": -1}, "threads is -1"),
    ):
        with pytest.raises(UserError, match=rf"could not run it .*{message}"):
            latency.cold_start(bundle, make_image(), **choice)


def test_cold_start_of_a_broken_bundle_says_why(tmp_path):
    with pytest.raises(UserError, match=r"a fresh process could not run it .*no such folder"):
        latency.cold_start(tmp_path / "missing", IMAGE)


@pytest.mark.parametrize("kind", ["rgb", "sar"])
def test_sample_image_is_the_first_golden_input(tmp_path, kind):
    make_bundle(tmp_path / "bundle", kind)
    image, source = latency.sample_image(tmp_path / "bundle", SPECS[kind])
    assert source == "golden"
    np.testing.assert_array_equal(image, make_image(kind, seed=0))


@pytest.mark.parametrize("kind", ["rgb", "sar"])
def test_sample_image_without_golden_is_random_and_fits(tmp_path, kind):
    make_bundle(tmp_path / "bundle", kind)
    (tmp_path / "bundle" / GOLDEN).unlink()
    image, source = latency.sample_image(tmp_path / "bundle", SPECS[kind])
    assert source == "random"
    assert image.std() > 0
    load(tmp_path / "bundle", threads=1, verify=False)(image)


def test_broken_golden_is_named(tmp_path):
    make_bundle(tmp_path / "bundle")
    (tmp_path / "bundle" / GOLDEN).write_bytes(b"PK, but not for long")
    with pytest.raises(UserError, match=r"golden.npz: does not hold inputs"):
        latency.sample_image(tmp_path / "bundle", SPECS["rgb"])
