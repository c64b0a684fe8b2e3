"""The files for SLURM and Kubernetes say what these understand, and their commands run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from distill.run import parse
from tests.conftest import ROOT
from tests.distill.tiny import RUN
from tests.distill.training.nodes import free_port

SLURM, KUBERNETES = ROOT / "examples" / "slurm.sbatch", ROOT / "examples" / "kubernetes.yaml"
SHORT = (*RUN, "--no-teacher", "--int8.no-enabled")
"""A run whose only training takes two steps."""
COMMANDS = {
    "scontrol": 'if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> "$LOG"; fi',
    "srun": 'shift; "$@" & echo $! > "$LOG.pid"; wait',
    "scancel": 'echo "$@" >> "$LOG"; kill -TERM "$(cat "$LOG.pid")"',
}
"""What the script calls, for one machine."""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """SLURM's commands and variables, on one machine with two processes; returns the file that logs the calls."""
    (tmp_path / "bin").mkdir()
    for name, script in COMMANDS.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    places = [str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    for name, value in {
        "PATH": os.pathsep.join(places),
        "PYTHONPATH": str(ROOT),
        "LOG": str(tmp_path / "calls"),
        "PROCESSES": "2",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "here",
        "SLURM_JOB_NUM_NODES": "1",
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "calls"


def test_the_script_is_clean():
    """By shellcheck, and its options are those that the text speaks of."""
    subprocess.run(["shellcheck", str(SLURM)], check=True, env=os.environ | {"PATH": search_path()})
    options = [line.removeprefix("#SBATCH ") for line in SLURM.read_text().splitlines() if "#SBATCH" in line]
    assert {"--requeue", "--signal=B:USR1@120", "--nodes=2"} <= set(options)


def search_path() -> str:
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


@pytest.mark.slow
def test_slurm_runs_the_command(slurm, tmp_path):
    out = tmp_path / "run"
    done = subprocess.run(
        ["bash", str(SLURM), *SHORT, f"--out={out}"], cwd=ROOT, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    assert (out / "report.md").exists()
    assert not slurm.exists()


@pytest.mark.slow
def test_slurm_queues_the_job_again_with_the_state_saved(slurm, tmp_path):
    out, many = tmp_path / "run", ("--student-train.steps=100000", "--student-train.checkpoint-every=100000")
    script = subprocess.Popen(
        ["bash", str(SLURM), *SHORT, f"--out={out}", *many], cwd=ROOT, start_new_session=True
    )
    try:
        wait_until(lambda: (out / "student" / "metrics.jsonl").exists() and steps(out) > 1, script)
        script.send_signal(signal.SIGUSR1)
        assert script.wait(60) == 0
    finally:
        if script.poll() is None:
            os.killpg(script.pid, signal.SIGKILL)
    job = os.environ["SLURM_JOB_ID"]
    assert slurm.read_text().splitlines() == [f"--signal=TERM {job}", f"requeue {job}"]
    assert (out / "student" / "last.safetensors").exists()


def wait_until(reached, process) -> None:
    end = time.monotonic() + 400
    while not reached():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < end
        time.sleep(0.2)


def steps(out: Path) -> int:
    return len((out / "student" / "metrics.jsonl").read_text().splitlines())


def documents() -> tuple[dict, dict]:
    service, job = yaml.safe_load_all(KUBERNETES.read_text(encoding="utf-8"))
    return service, job


def test_the_manifest_fits_the_schema():
    """Also against Kubernetes' own schemas, where the package that brings them is installed."""
    service, job = documents()
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert (service["apiVersion"], service["kind"], service["spec"]["clusterIP"]) == ("v1", "Service", "None")
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert service["spec"]["selector"]["batch.kubernetes.io/job-name"] == job["metadata"]["name"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod["volumes"]}
    names = {one["name"]: one.get("value") for one in container["env"]}
    assert int(names["NODES"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert names["MEETING_POINT"].startswith(f"{job['metadata']['name']}-0.{pod['subdomain']}:")
    assert int(names["PROCESSES"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    preset, *fields = container["args"]
    assert parse([preset, *fields]).resume


@pytest.mark.parametrize("index", [0, 1])
def test_kubernetes_own_schemas(index):
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    validate.validate(documents()[index], "1.34", strict=True)


@pytest.mark.slow
def test_kubernetes_runs_the_command(tmp_path):
    """Both pods on this machine."""
    [container] = documents()[1]["spec"]["template"]["spec"]["containers"]
    out = tmp_path / "run"
    variables = {
        **os.environ,
        **{one["name"]: one["value"] for one in container["env"] if "value" in one},
        **{"PATH": search_path(), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        **{
            "NODES": "2",
            "PROCESSES": "1",
            "POD_IP": "127.0.0.1",
            "MEETING_POINT": f"127.0.0.1:{free_port()}",
        },
    }
    pods = [
        subprocess.Popen(
            [*container["command"], *SHORT, f"--out={out}", "--resume"],
            cwd=ROOT,
            env=variables | {"JOB_COMPLETION_INDEX": str(index)},
        )
        for index in range(2)
    ]
    try:
        assert [pod.wait(500) for pod in pods] == [0, 0]
    finally:
        for pod in pods:
            pod.kill()
    assert (out / "report.md").exists()
