"""progress.py: the bar, and cancellation."""

import io
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from deploy.backends.tensorrt_gpu import progress as trt_progress
from deploy.backends.tensorrt_gpu.progress import Progress, bar, monitor, run_cancellable


def test_nested_phases_add_up():
    progress = Progress()
    progress.start("build", None, 4)
    progress.step("build", 0)
    assert progress.fraction == 0.25
    progress.start("optimize", "build", 2)
    progress.step("optimize", 0)
    assert progress.fraction == 0.375
    progress.finish("optimize")
    progress.step("build", 1)
    assert progress.fraction == 0.5
    progress.start("optimize", "build", 10)  # a name may recur
    progress.step("optimize", 4)
    assert progress.fraction == pytest.approx(0.625)
    progress.step("build", 3)
    assert progress.fraction == 1


def test_fraction_never_falls_nor_leaves_its_range():
    progress = Progress()
    progress.start("one", None, 2)
    progress.step("one", 1)
    progress.finish("one")
    progress.start("two", None, 100)
    progress.step("two", 0)
    progress.step("unknown", 7)
    progress.start("a", "b", 0)
    progress.start("b", "a", 0)
    progress.step("a", 3)
    assert progress.fraction == 1


def test_bar_is_drawn_and_removed(monkeypatch):
    monkeypatch.setattr(trt_progress, "REDRAW_SECONDS", -1)
    stream = io.StringIO()
    progress = Progress(stream)
    progress.start("build", None, 2)
    progress.step("build", 0)
    assert stream.getvalue() == f"\r{bar(0.5)} build\x1b[K"
    assert bar(0.5) == f"[{'#' * 15}{'.' * 15}]  50 %"
    progress.close()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_bar_survives_a_closed_terminal(monkeypatch):
    monkeypatch.setattr(trt_progress, "REDRAW_SECONDS", -1)
    stream = io.StringIO()
    stream.close()
    progress = Progress(stream)
    progress.start("build", None, 1)
    progress.step("build", 0)
    progress.close()
    assert progress.fraction == 1


def test_bar_that_was_never_drawn_is_not_removed():
    stream = io.StringIO()
    Progress(stream).close()
    assert stream.getvalue() == ""


def test_monitor_stops_the_build():
    stop, progress = threading.Event(), Progress()
    watcher = monitor(SimpleNamespace(IProgressMonitor=type("IProgressMonitor", (), {})), progress, stop)
    watcher.phase_start("build", None, 2)
    assert watcher.step_complete("build", 0) is True
    stop.set()
    assert watcher.step_complete("build", 1) is False
    watcher.phase_finish("build")
    assert progress.fraction == 1


def test_run_cancellable_passes_results_and_errors_on():
    assert run_cancellable(lambda stop: (stop.is_set(), threading.current_thread().name)) == (False, "build")
    with pytest.raises(ZeroDivisionError):
        run_cancellable(lambda stop: 1 / 0)


@pytest.fixture
def ctrl_c():
    """Ctrl-C works as in a terminal; background jobs are started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_waits_for_the_work_to_end(capsys):
    """Pressed twice: the second press does not abandon the work either."""
    ended = []

    def work(stop):
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(30)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)
        ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        run_cancellable(work)
    assert ended == [True]
    assert capsys.readouterr().err == "stopping …\n"


def test_ctrl_c_is_not_for_other_threads():
    """Python delivers it to the main thread; a build in another thread continues."""
    results = []
    thread = threading.Thread(target=lambda: results.append(run_cancellable(lambda stop: 7)))
    thread.start()
    thread.join()
    assert results == [7]
