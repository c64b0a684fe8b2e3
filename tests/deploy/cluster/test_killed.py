"""SIGKILL, half-way, of a worker and of the client: the results are those of an undisturbed run, bit by bit."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from benchmarks.raster_network import make_bundle
from tests.conftest import ROOT
from tests.deploy.cluster.runs import ENGINE, contents, many, one_by_one, raster, write_images
from tests.deploy.raster.networks import write_tif

IMAGES = 40


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that takes a while, images and a raster for it, and what one machine makes of them."""
    folder = tmp_path_factory.mktemp("killed")
    make_bundle(folder / "bundle", 128, 64)
    write_images(folder / "images", IMAGES, (200, 260))
    image = np.random.default_rng(0).integers(0, 256, (1500, 600, 3), np.uint8)
    write_tif(folder / "big.tif", image)
    one_by_one(folder / "bundle", folder / "images", folder / "one")
    raster(folder / "bundle", folder / "big.tif", folder / "one.tif")
    return folder


@contextmanager
def started(work: Path, given: str, out: str, *more: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "deploy", "predict-many", work / "bundle", work / given, work / out]
    command += [*ENGINE, "--workers", "2", *more]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that predict, which multiprocessing has spawned."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [one for one in children if "spawn_main" in " ".join(one.cmdline())]


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not happened():
        assert process.poll() is None, "it ended too early to be disturbed"
        time.sleep(0.01)


def journaled(folder: Path) -> int:
    """Number of inputs that are done."""
    try:
        return len((folder / ".predict-many" / "journal").read_bytes().splitlines()) - 1
    except FileNotFoundError:
        return 0


def chunks(work: Path, out: str) -> int:
    return len(list(work.glob(f".{out}.predict-many/chunks/*/labels-*")))


def test_a_killed_worker_changes_nothing_in_the_images(work):
    with started(work, "images", "lost-worker") as process:
        wait_until(lambda: journaled(work / "lost-worker") >= 5, process)
        os.kill(workers_of(process)[0].pid, signal.SIGKILL)
        assert journaled(work / "lost-worker") < IMAGES
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert f"{IMAGES} of {IMAGES} images predicted" in output
    assert "Traceback" not in errors
    assert contents(work / "lost-worker") == contents(work / "one")


def test_a_killed_worker_changes_nothing_in_a_raster(work):
    with started(work, "big.tif", "lost.tif", "--mosaic") as process:
        wait_until(lambda: chunks(work, "lost.tif") >= 1, process)
        os.kill(workers_of(process)[-1].pid, signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert (work / "lost.tif").read_bytes() == (work / "one.tif").read_bytes()
    assert not (work / ".lost.tif.predict-many").exists()


def test_a_killed_client_costs_only_what_was_being_done(work, capsys):
    with started(work, "images", "lost-client") as process:
        wait_until(lambda: journaled(work / "lost-client") >= 5, process)
        children = workers_of(process)
        process.kill()
    psutil.wait_procs(children, timeout=30)
    assert not any(one.is_running() for one in children)
    done = journaled(work / "lost-client")
    assert done < IMAGES
    assert many(work / "bundle", work / "images", work / "lost-client", "--workers", "1", "--resume") == 0
    assert (
        f"{IMAGES} of {IMAGES} images predicted by onnxruntime fp32, {done} of them"
        in capsys.readouterr().out
    )
    assert contents(work / "lost-client") == contents(work / "one")


def test_a_killed_client_costs_only_chunks_of_a_raster(work):
    with started(work, "big.tif", "again.tif", "--mosaic") as process:
        wait_until(lambda: chunks(work, "again.tif") >= 1, process)
        children = workers_of(process)
        process.kill()
    psutil.wait_procs(children, timeout=30)
    done = {path: path.stat().st_mtime_ns for path in work.glob(".again.tif.predict-many/chunks/*/*.npy")}
    with started(work, "big.tif", "again.tif", "--mosaic", "--resume") as process:
        kept = {}
        while process.poll() is None:
            kept |= {path: path.stat().st_mtime_ns for path in done if path.exists()}
            time.sleep(0.05)
        assert process.returncode == 0, process.stderr.read() if process.stderr else ""
    assert kept == done
    assert (work / "again.tif").read_bytes() == (work / "one.tif").read_bytes()
    assert not (work / ".again.tif.predict-many").exists()


def test_a_stopped_client_ends_its_workers_and_can_be_resumed(work):
    with started(work, "images", "stopped") as process:
        wait_until(lambda: journaled(work / "stopped") >= 3, process)
        children = workers_of(process)
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert errors.splitlines()[-1] == "stopped by SIGTERM"
    psutil.wait_procs(children, timeout=30)
    assert not any(one.is_running() for one in children)
    assert many(work / "bundle", work / "images", work / "stopped", "--workers", "1", "--resume") == 0
    assert contents(work / "stopped") == contents(work / "one")
