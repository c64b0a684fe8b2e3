"""`model.stream`: results in order, dropping, drawing, errors and warnings in their place, threads that stop."""

import dataclasses
import gc
import subprocess
import sys
import time
import weakref

import numpy as np
import pytest

from deploy.errors import UserError
from tests.conftest import ROOT
from tests.deploy.stream.networks import LevelEngine, level, level_model, threads
from tests.deploy.stream.test_capture import write_video
from tests.deploy.tiny import make_bundle


@pytest.fixture(autouse=True)
def no_threads_remain():
    yield
    assert threads() == []


def camera(count, seconds, start=0):
    """Frames at a pace of their own."""
    for value in range(start, start + count):
        time.sleep(seconds)
        yield level(value)


def test_every_frame_in_order_with_its_result():
    results = list(level_model().stream(level(value) for value in range(100)))
    assert [one.index for one in results] == list(range(100))
    assert [one.result.labels[0, 0] for one in results] == list(range(100))
    assert all((one.frame == one.index).all() for one in results)
    assert {(one.dropped, one.picture) for one in results} == {(0, None)}
    assert results == sorted(results, key=lambda one: one.seconds)


def test_results_equal_those_of_single_calls():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (20 + n, 50 - n, 3), np.uint8) for n in range(8)]
    model = level_model()
    for image, one in zip(images, model.stream(images), strict=True):
        np.testing.assert_array_equal(one.result.labels, model(image).labels)
        assert one.result.labels.shape == image.shape[:2]
        assert one.result.timings.total_ms > 0


def test_stages_overlap():
    made, ahead_of_engine, ahead_of_caller = [], [], []

    def images():
        for value in range(30):
            made.append(value)
            yield level(value)

    class Engine(LevelEngine):
        def run(self, batch):
            outputs = super().run(batch)
            ahead_of_engine.append(made[-1] - int(batch[0, 0, 0, 0]))
            return outputs

    model = dataclasses.replace(level_model(), engine=Engine(0.01))
    for one in model.stream(images()):
        time.sleep(0.02)
        ahead_of_caller.append(len(ahead_of_engine) - one.index)
    assert np.median(ahead_of_engine) >= 2  # decoded while the engine was at work
    assert np.median(ahead_of_caller) >= 2  # run while the caller was at work


def test_waiting_loses_nothing_however_slow_the_caller_is():
    results = []
    for one in level_model().stream((level(value) for value in range(12)), queue=1, when_full="wait"):
        time.sleep(0.01)
        results.append(one.index)
    assert results == list(range(12))


def test_dropping_keeps_the_newest_frames():
    stream = level_model(seconds=0.03).stream(camera(40, 0.005), queue=1, when_full="drop")
    results = list(stream)
    indices = [one.index for one in results]
    assert indices == sorted(set(indices))
    assert indices[-1] == 39  # the last frame is never the one to go
    assert len(indices) < 25
    assert [one.result.labels[0, 0] for one in results] == indices
    assert [one.dropped for one in results] == [index - before for before, index in enumerate(indices)]


def test_after_a_pause_of_the_caller_the_next_result_is_new():
    stream = level_model().stream(camera(100, 0.005), when_full="drop")
    next(stream)
    time.sleep(0.25)
    assert next(stream).index >= 5  # waiting, it would be 1
    stream.close()


@pytest.mark.parametrize("close", [True, False])
def test_an_early_end_stops_the_threads_at_once(close):
    stream = level_model().stream(camera(1000, 0.001))
    for one in stream:
        if one.index == 3:
            break
    assert len(threads()) == 3
    if close:
        stream.close()
    else:
        del stream
        gc.collect()
    assert threads() == []


def test_an_error_of_the_caller_stops_the_threads():
    def caller():
        for one in level_model().stream(camera(1000, 0.001)):
            assert one.index // 0

    with pytest.raises(ZeroDivisionError):
        caller()
    assert threads() == []


def test_a_stream_that_is_never_read_starts_nothing():
    stream = level_model().stream(camera(3, 0))
    assert threads() == []
    stream.close()


def test_memory_does_not_grow_with_the_number_of_frames():
    alive: set[int] = set()

    def images():
        for value in range(60):
            image = level(value)
            alive.add(value)
            weakref.finalize(image, alive.discard, value)
            yield image
            del image

    most = 0
    for one in level_model().stream(images(), queue=2):
        time.sleep(0.002)
        most = max(most, len(alive))
        del one
    assert 3 <= most <= 2 + 6


@pytest.mark.parametrize("wrong", ["decoder", "image", "engine", "drawing"])
def test_errors_come_after_the_results_before_them_and_name_the_frame(wrong):
    def images():
        for value in range(5):
            yield level(value)
        if wrong == "decoder":
            raise OSError("disk on fire")
        yield level(5)[..., 0] if wrong == "image" else level(5)
        yield level(6)

    def draw(image, result):
        assert wrong != "drawing" or result.labels[0, 0] < 5, "the pen broke"
        return image

    model = level_model(fails_at=5 if wrong == "engine" else None)
    found = []
    messages = {
        "decoder": r"^frame 5: the source failed \(OSError: disk on fire\)$",
        "image": "^frame 5: image has 1 channel, the bundle wants 3",
        "engine": "^frame 5: RuntimeError: the engine broke$",
        "drawing": "^frame 5: AssertionError: the pen broke",
    }
    stream = model.stream(images(), draw=draw)
    with pytest.raises(UserError, match=messages[wrong]):
        found.extend(one.index for one in stream)
    assert found == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("draw", [True, lambda frame, result: np.full((8, 8, 3), result.labels[0, 0])])
def test_drawing(draw):
    model = level_model()
    for one in model.stream([level(0), level(2)], draw=draw):
        expected = model.draw(one.frame, one.result) if draw is True else draw(one.frame, one.result)
        np.testing.assert_array_equal(one.picture, expected)
        assert one.picture.dtype == np.asarray(expected).dtype


def test_the_picture_of_a_segmentation_has_the_size_of_the_frame():
    model = level_model()
    image = level(1, (20, 30))
    picture = model.draw(image, model(image))
    assert (picture.shape, picture.dtype) == ((20, 30, 3), np.uint8)
    assert picture[0, 0].argmax() == 1  # class 1 is green


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queue": 0}, "queue is 0; give a whole number from 1 on, the number of frames that may wait"),
        ({"queue": "2"}, "queue is '2'; give a whole number"),
        ({"queue": True}, "queue is True; give a whole number"),
        ({"queue": 1.5}, r"queue is 1\.5; give a whole number"),
        ({"when_full": "block"}, "'wait' or 'drop'"),
    ],
)
def test_wrong_options_are_refused_at_once(options, message):
    with pytest.raises(UserError, match=message):
        level_model().stream([level(0)], **options)


def test_a_video(tmp_path):
    video = write_video(tmp_path / "clip.avi", count=30)
    results = list(level_model().stream(video))
    assert [one.index for one in results] == list(range(30))
    assert results[-1].where == f"{video}, frame 29"


def test_a_truncated_video_ends_with_a_warning(tmp_path):
    video = write_video(tmp_path / "clip.avi", count=30)
    data = video.read_bytes()
    video.write_bytes(data[: len(data) // 2])
    results = []
    with pytest.warns(RuntimeWarning, match=r"clip\.avi: ended after \d+ frames, its header says 30"):
        results.extend(level_model().stream(video))
    assert 1 < len(results) < 29


INTERRUPTED = """
import signal, time
from tests.deploy.stream.networks import LevelEngine, level, level_model, threads

def camera():
    yield level(0)
    time.sleep(0.7)  # a read that takes its time

begin = time.monotonic()
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    for one in level_model().stream(camera()):
        pass
except KeyboardInterrupt:
    print("interrupted", time.monotonic() - begin < 2, threads())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no timer signals")
def test_ctrl_c_ends_a_stream_that_waits_for_its_source():
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout.strip(), done.returncode) == ("interrupted True []", 0), done.stderr


def test_a_program_may_end_in_the_middle_of_a_stream(tmp_path):
    make_bundle(tmp_path / "a.bundle")
    code = f"""
import itertools, sys
import numpy as np
import deploy

model = deploy.load({str(tmp_path / "a.bundle")!r}, "onnxruntime", threads=1)
frame = np.zeros((2000, 2000, 3), np.uint8)
results = model.stream(itertools.repeat(frame))  # a global name keeps it open
next(results)
sys.exit(3)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (ended.returncode, ended.stderr) == (
        3,
        "",
    )  # not SIGABRT: "terminate called without an active exception"
