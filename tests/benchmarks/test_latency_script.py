"""benchmarks/latency.py as a user runs it, and the description of the machine."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks.latency import main
from deploy.errors import UserError
from deploy.latency.latency import ColdStart, LatencyStats, Summary
from deploy.measure import machine
from tests.conftest import ROOT
from tests.deploy.precisions import FakeEngine, add_engine, make_precisions
from tests.deploy.tiny import make_bundle

FAST = ("--runs", "3", "--warmup", "1", "--threads", "1")
ORT = ("--backends", "onnxruntime")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    make_bundle(folder / "optical")
    make_bundle(folder / "radar", "sar")
    return [str(folder / "optical"), str(folder / "radar")]


def run_script(*arguments):
    command = [sys.executable, "benchmarks/latency.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_script_prints_a_table_and_writes_json(bundles, tmp_path):
    report = tmp_path / "report.json"
    done = run_script(*bundles, *FAST, *ORT, "--precisions", "fp32", "--json", str(report))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [
        line.split()[0] for line in lines if line.startswith(bundles[0]) or line.startswith(bundles[1])
    ] == bundles
    assert "image: golden" in done.stdout

    content = json.loads(report.read_text())
    assert content["runs"] == 3
    assert content["machine"]["packages"]["onnxruntime"]
    optical, radar = content["bundles"]
    assert (optical["name"], optical["input"]) == ("tiny-rgb", "32×48×3 uint8")
    assert (radar["name"], radar["input"]) == ("tiny-sar", "32×48×2 float32")
    assert (radar["backend"], radar["precision"], radar["speedup"]) == ("onnxruntime", "fp32", 1.0)
    assert radar["model_bytes"] == (Path(bundles[1]) / "model.onnx").stat().st_size
    assert radar["latency"]["runs"] == 3
    assert radar["cold_start"]["peak_rss_bytes"] > 0


def test_image_from_a_file(bundles, tmp_path, capsys):
    np.save(tmp_path / "image.npy", np.zeros((40, 50, 2), np.float32))
    options = ["--image", str(tmp_path / "image.npy"), "--json", str(tmp_path / "report.json")]
    main([bundles[1], *FAST, *ORT, *options])
    (row,) = json.loads((tmp_path / "report.json").read_text())["bundles"]
    assert row["image"] == [40, 50, 2]
    assert str(tmp_path / "image.npy") in capsys.readouterr().out


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A bundle with an INT8 model of another size than that of its fp32 model."""
    return make_precisions(tmp_path_factory.mktemp("both") / "bundle", "int8", "fp16")


@pytest.fixture
def instant(monkeypatch):
    """No fresh processes, and each model runs once; the median of the nth is n ms."""
    started = []

    def cold_start(folder, image, backend, threads, precision):
        started.append((backend, precision, threads))
        return ColdStart(1.0, 0.1, 0.2, 10**7, 1)

    def measure(models, runs, warmup):
        for model, image in models:
            model(image)
        same = Summary(1, 1, 1, 1, 1, 0)
        totals = (msgspec.structs.replace(same, p50=float(n)) for n in range(1, len(models) + 1))
        return [LatencyStats(runs, total, same, same, same, 100.0) for total in totals]

    monkeypatch.setattr("benchmarks.latency.cold_start", cold_start)
    monkeypatch.setattr("benchmarks.latency.measure_interleaved", measure)
    return started


def measured(folder, tmp_path, *options):
    main([str(folder), *FAST, *options, "--json", str(tmp_path / "report.json")])
    return json.loads((tmp_path / "report.json").read_text())["bundles"]


def test_backends_and_precisions_side_by_side(both, instant, tmp_path, capsys):
    pytest.importorskip("openvino")
    wanted = ["--backends", "onnxruntime", "openvino", "--precisions", "fp32", "int8"]
    rows = measured(both, tmp_path, *wanted)
    pairs = [("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("openvino", "fp32"), ("openvino", "int8")]
    assert [(row["backend"], row["precision"]) for row in rows] == pairs
    assert instant == [(*pair, 1) for pair in pairs]
    assert [row["speedup"] for row in rows] == [1, 1 / 2, 1, 3 / 4]
    files = ["model.onnx", "model.int8-cpu.onnx"] * 2
    assert [row["model_file"] for row in rows] == files
    assert [row["model_bytes"] for row in rows] == [(both / name).stat().st_size for name in files]
    table = capsys.readouterr().out
    assert "0.50×" in table
    assert "speed-up" in table
    assert f"INT8 is slower than fp32 here: {both} on onnxruntime 0.50× (2.00 ms against 1.00); " in table
    assert f"{both} on openvino 0.75×" in table


def test_what_there_is_is_measured_by_default(both, bundles, instant, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.latency.installed", lambda: ["onnxruntime"])
    assert [row["precision"] for row in measured(both, tmp_path)] == ["fp32", "int8"]
    assert "no INT8" not in capsys.readouterr().out
    assert [row["precision"] for row in measured(bundles[0], tmp_path)] == ["fp32"]
    assert f"{bundles[0]}: has no INT8 model to measure; make it: " in capsys.readouterr().out


def test_a_precision_that_was_asked_for_must_be_there(bundles, instant, tmp_path):
    with pytest.raises(UserError, match=r"has no int8 model .*edgedistill build "):
        measured(bundles[0], tmp_path, "--precisions", "fp32", "int8")
    with pytest.raises(UserError, match="has no engine for tensorrt"):
        measured(bundles[0], tmp_path, "--backends", "tensorrt")
    assert instant == []


def test_engines_are_measured_where_there_is_a_gpu(tmp_path, instant, monkeypatch):
    folder = make_precisions(tmp_path / "bundle")
    add_engine(folder, "tensorrt-rtx", "int8")
    file = add_engine(folder, "tensorrt-rtx", "fp32")
    monkeypatch.setattr("benchmarks.latency.installed", lambda: ["onnxruntime"])
    monkeypatch.setattr("deploy.backends.tensorrt_gpu.cuda.why_not", lambda device: "")
    monkeypatch.setattr(
        "deploy.backends.tensorrt_gpu.engine.open_trt", lambda *_, **__: FakeEngine(file=file)
    )
    rows = measured(folder, tmp_path)
    assert [(row["backend"], row["precision"]) for row in rows] == [
        ("onnxruntime", "fp32"),
        ("tensorrt-rtx", "fp32"),
        ("tensorrt-rtx", "int8"),
    ]
    assert rows[2]["model_file"] == file.name  # the one that was opened
    assert rows[2]["model_bytes"] == len(b"an engine")


def test_missing_bundle_is_one_line(tmp_path):
    done = run_script(str(tmp_path / "nothing"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert str(tmp_path / "nothing") in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("wrong", [("--runs", "0"), ("--warmup", "-1"), ("--threads", "0")])
def test_impossible_counts_are_refused_before_measuring(wrong, monkeypatch):
    monkeypatch.setattr("benchmarks.latency.cold_start", lambda *_: pytest.fail("measured"))
    with pytest.raises(UserError, match=r"--runs|--threads"):
        main(["no-such-bundle", *wrong])


def test_machine_is_json_and_imports_nothing_heavy():
    code = """
import json, sys
from deploy.measure import machine
print(json.dumps(machine.describe()), *sys.modules, sep="\\n")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    description, *modules = done.stdout.splitlines()
    described = json.loads(description)
    assert described["cores"] >= 1
    assert described["python"] == ".".join(map(str, sys.version_info[:3]))
    assert described["packages"]["numpy"] == np.__version__
    assert not {"torch", "onnxruntime", "numpy", "PIL"} & set(modules)
    assert f"Python {described['python']}" in machine.summary(described)


def test_machine_without_linux_files(monkeypatch):
    monkeypatch.setattr(machine.host, "read_text", lambda path: "")
    described = machine.describe()
    assert described["cpu_flags"] == []
    assert described["cpu_quota"] is None
    assert machine.summary(described)


def test_container_quota_and_cpu_flags(monkeypatch):
    files = {
        "/proc/cpuinfo": "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 avx512_vnni amx_int8\n",
        "/sys/fs/cgroup/cpu.max": "150000 100000\n",
    }
    monkeypatch.setattr(machine.host, "read_text", lambda path: files.get(path, ""))
    described = machine.describe()
    assert described["cpu"] == "Some CPU"
    assert described["cpu_flags"] == ["avx2", "avx512_vnni", "amx_int8"]
    assert described["cpu_quota"] == 1.5
