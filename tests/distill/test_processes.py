"""Two processes on the CPU walk the road together."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distill.tiny import RUN

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_two_processes_share_a_run(tmp_path):
    out = tmp_path / "run"
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "distill/run.py", *RUN]
    batches = ["--teacher-train.batch-size=4", "--student-train.batch-size=4"]
    result = subprocess.run(
        [sys.executable, *launch, *batches, f"--out={out}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert result.returncode == 0, result.stderr
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
    assert result.stdout.count("Export of the student") == 1
