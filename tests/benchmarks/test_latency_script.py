"""benchmarks/latency.py as a user runs it, and the description of the machine."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import machine
from benchmarks.latency import main
from deploy.errors import UserError
from tests.deploy.tiny import make_bundle

ROOT = Path(__file__).resolve().parents[2]
FAST = ("--runs", "3", "--warmup", "1", "--threads", "1")


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
    done = run_script(*bundles, *FAST, "--json", str(report))
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
    assert radar["model_bytes"] == (Path(bundles[1]) / "model.onnx").stat().st_size
    assert radar["latency"]["runs"] == 3
    assert radar["cold_start"]["peak_rss_bytes"] > 0


def test_image_from_a_file(bundles, tmp_path, capsys):
    np.save(tmp_path / "image.npy", np.zeros((40, 50, 2), np.float32))
    options = ["--image", str(tmp_path / "image.npy"), "--json", str(tmp_path / "report.json")]
    main([bundles[1], *FAST, *options])
    (row,) = json.loads((tmp_path / "report.json").read_text())["bundles"]
    assert row["image"] == [40, 50, 2]
    assert str(tmp_path / "image.npy") in capsys.readouterr().out


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
from benchmarks import machine
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
    monkeypatch.setattr(machine, "_read", lambda path: "")
    described = machine.describe()
    assert described["cpu_flags"] == []
    assert described["cpu_quota"] is None
    assert machine.summary(described)


def test_container_quota_and_cpu_flags(monkeypatch):
    files = {
        "/proc/cpuinfo": "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 avx512_vnni amx_int8\n",
        "/sys/fs/cgroup/cpu.max": "150000 100000\n",
    }
    monkeypatch.setattr(machine, "_read", lambda path: files.get(path, ""))
    described = machine.describe()
    assert described["cpu"] == "Some CPU"
    assert described["cpu_flags"] == ["avx2", "avx512_vnni", "amx_int8"]
    assert described["cpu_quota"] == 1.5
