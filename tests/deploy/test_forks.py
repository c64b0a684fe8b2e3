"""A fork while other threads predict: the child predicts, or says in one line why not, and never hangs."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

import deploy
from deploy import forks
from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.errors import UserError
from deploy.files.decoding import decode
from deploy.files.images import write_png
from tests.deploy.tiny import make_bundle, make_image

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),  # Python's own, from 3.12 on
]
SECONDS = 60
"""Longest wait for a child: a hang, even beside other work."""


def in_child(work: Callable[[], object]) -> str:
    """What `work` returns in a forked child, or its error, as text."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            text = str(work())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    end = time.monotonic() + SECONDS
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            pytest.fail("the child hangs")
        time.sleep(0.005)
    with os.fdopen(reading, "rb") as pipe:
        return pipe.read().decode()


@contextmanager
def busy(work: Callable[[], object], threads: int = 4) -> Iterator[None]:
    """Threads that do the same again and again."""
    stop = threading.Event()

    def again() -> None:
        while not stop.is_set():
            work()

    others = [threading.Thread(target=again) for _ in range(threads)]
    for one in others:
        one.start()
    try:
        yield
    finally:
        stop.set()
        for one in others:
            one.join()


@pytest.mark.parametrize(("backend", "threads"), [("onnxruntime", 2), ("openvino", 1)])
def test_children_predict_while_the_parent_does(tmp_path, backend, threads):
    pytest.importorskip(backend)
    make_bundle(tmp_path)
    model, image = deploy.load(tmp_path, backend, threads), make_image()
    expected = model(image).labels
    with busy(lambda: model(image)):
        for _ in range(8):
            assert in_child(lambda: np.array_equal(model(image).labels, expected)) == "True"
    assert np.array_equal(model(image).labels, expected)


def test_openvino_with_several_threads_refuses_in_a_child(tmp_path):
    pytest.importorskip("openvino")
    make_bundle(tmp_path)
    model, image = deploy.load(tmp_path, "openvino", 2), make_image()
    told = in_child(lambda: model(image))
    assert "OpenVINO was in use when this process was forked, and its threads do not follow into it" in told
    assert model(image).labels.shape == image.shape[:2]  # the parent goes on


ENDS = """
import os, sys, deploy
model = deploy.load(sys.argv[1], sys.argv[2], 2)
image = np.zeros((40, 60, 3), np.uint8)
model(image)
child = os.fork()
if child == 0:
    if sys.argv[2] == "onnxruntime":
        model(image)
    sys.exit(7)  # destroys what the module holds
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


GONE = """
import gc, os, sys, deploy
from deploy.errors import UserError
image = np.zeros((40, 60, 3), np.uint8)
deploy.load(sys.argv[1], "openvino", 2)(image)
gc.collect()
child = os.fork()
if child == 0:
    if len(sys.argv) > 2:
        try:
            deploy.load(sys.argv[1], "openvino", 2)(image)
        except UserError as error:
            print(error, flush=True)
        print(deploy.load(sys.argv[1], "openvino", 1)(image).labels.shape, flush=True)
        print(deploy.load(sys.argv[1]).engine.name, flush=True)
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize("loads", [False, True])
def test_a_child_after_the_last_engine_of_openvino_is_gone(tmp_path, loads):
    """What is left of OpenVINO has threads, too."""
    pytest.importorskip("openvino")
    make_bundle(tmp_path)
    command = [sys.executable, "-W", "ignore", "-c", f"import numpy as np\n{GONE}", str(tmp_path)]
    done = subprocess.run(
        command + ["loads"] * loads, capture_output=True, text=True, timeout=SECONDS, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[-1] == "7"
    if loads:
        assert "its threads do not follow into it; give threads=1, or start processes by" in lines[0]
        assert lines[1] == "(40, 60)"
        assert lines[2].startswith("onnxruntime ")


def test_a_signal_while_a_fork_waits_is_not_lost(tmp_path):
    script = """
import os, signal, sys, threading, time
from deploy import forks
from deploy.errors import exit_with_one_line

def main():
    entered = threading.Event()
    def work():
        with forks.in_library:
            entered.set()
            time.sleep(3)
    threading.Thread(target=work, daemon=True).start()
    entered.wait()
    threading.Timer(0.5, os.kill, (os.getpid(), int(sys.argv[1]))).start()
    if os.fork() == 0:
        os._exit(0)
    time.sleep(30)

exit_with_one_line(main)
"""
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        command = [sys.executable, "-W", "ignore", "-c", script, str(int(number))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_child_ends_as_any_process(tmp_path, backend):
    pytest.importorskip(backend)
    make_bundle(tmp_path)
    command = [sys.executable, "-W", "ignore", "-c", f"import numpy as np\n{ENDS}", str(tmp_path), backend]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    assert done.stdout == "7\n"


def test_children_read_images_while_the_parent_does(tmp_path):
    path = tmp_path / "image.png"
    write_png(path, make_image())
    with busy(lambda: decode(path)):
        for _ in range(8):
            assert in_child(lambda: decode(path)[1]) == "8"


def test_a_call_that_takes_too_long_is_said_in_the_child(tmp_path, monkeypatch):
    monkeypatch.setattr(forks, "WAIT", 0.05)
    make_bundle(tmp_path)
    model, image = deploy.load(tmp_path, "onnxruntime", 1), make_image()
    entered, leave = threading.Event(), threading.Event()

    def long_call() -> None:
        with forks.in_library:
            entered.set()
            leave.wait(SECONDS)

    other = threading.Thread(target=long_call)
    other.start()
    entered.wait(SECONDS)
    told = in_child(lambda: model(image))
    leave.set()
    other.join()
    assert told.startswith("UserError: this process was forked while another thread ran a network")
    assert "'spawn'" in told
    assert "\n" not in told
    assert model(image).labels.shape == image.shape[:2]  # the parent goes on


def test_a_file_that_was_replaced_before_the_fork_is_named(tmp_path):
    make_bundle(tmp_path)
    model, image = deploy.load(tmp_path, "onnxruntime", 2), make_image()
    assert in_child(lambda: model(image).labels.shape) == str(image.shape[:2])
    copy = tmp_path / "copy"
    copy.write_bytes((tmp_path / "model.onnx").read_bytes())
    copy.replace(tmp_path / "model.onnx")
    assert "model.onnx: has changed since it was loaded" in in_child(lambda: model(image))


def test_a_thread_inside_a_library_may_fork_itself():
    with forks.in_library:
        assert in_child(lambda: forks._calls.broken) == "False"
        with forks.in_library:
            pass
    assert not forks._calls.inside


def test_a_model_on_a_gpu_refuses_after_a_fork(tmp_path):
    make_bundle(tmp_path)
    engine = OrtEngine(tmp_path / "model.onnx", 1, name="onnxruntime-cuda fp32")
    engine._gpu_of = os.getpid()  # as where a GPU's provider was asked for
    batch = np.zeros((1, *make_image().shape), np.uint8)
    with pytest.raises(UserError, match="cannot run it"):
        engine.run(batch[..., :1])  # the parent's call reaches ONNX Runtime
    told = in_child(lambda: engine.run(batch))
    assert told.startswith(
        "UserError: onnxruntime-cuda fp32: was loaded before this process was forked, and a GPU does not follow"
    )
