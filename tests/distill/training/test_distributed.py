"""Two processes on the CPU run the pipeline together, whatever launches them."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from distill.training.distributed import warn_of_a_lone_process
from tests.conftest import ROOT
from tests.distill.tiny import RUN


def launch(*command):
    """Run it and return stdout and stderr."""
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=500
    )
    assert result.returncode == 0, result.stderr
    return result.stdout, result.stderr


@pytest.mark.slow
def test_two_processes_share_a_run(tmp_path):
    out = tmp_path / "run"
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node=2")
    printed, _ = launch(*torchrun, "distill/run.py", *RUN, f"--out={out}")
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == [
        "baseline",
        "data",
        "pictures",
        "samples",
        "student",
        "student.bundle",
        "teacher",
        "teacher.bundle",
    ]
    lines = [json.loads(line) for line in (out / "student" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]
    assert json.loads((out / "config.json").read_text())["processes"] == 2
    assert printed.count("Export of the student") == 1


@pytest.mark.slow
def test_accelerate_launches_two_processes(tmp_path):
    """Only checks the number of processes: what follows is the same as with torchrun."""
    accelerate = ("accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1")
    options = ("--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0")
    printed, _ = launch(
        *accelerate, *options, "--module", "tests.distill.training.count_processes", str(tmp_path)
    )
    assert json.loads((tmp_path / "run" / "config.json").read_text())["processes"] == 2
    assert sorted(re.findall(r"\d/\d", printed)) == ["0/2", "1/2"]  # their lines may mix


@pytest.mark.parametrize(("processes", "warned"), [(1, True), (2, False)])
def test_a_launcher_that_starts_one_process_only_is_named(processes, warned, monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    warn_of_a_lone_process(SimpleNamespace(num_processes=processes))  # pyright: ignore[reportArgumentType]
    assert ("accelerate launch --multi_gpu" in capsys.readouterr().err) == warned
