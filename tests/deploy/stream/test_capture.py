"""Videos: every frame, RGB, with time stamps; truncated and damaged files; the device is released."""

from pathlib import Path

import numpy as np
import pytest

from deploy.errors import UserError
from deploy.stream import capture
from deploy.stream.capture import Truncated, video_frames

cv2 = pytest.importorskip("cv2")
capture.import_opencv()  # before the first use of its FFmpeg, so that it stays silent
COUNT, FPS = 12, 20


def write_video(path: Path, count: int = COUNT) -> Path:
    """Frames of 48×32 that turn from red to blue, and their noise."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (48, 32))
    assert writer.isOpened()
    rng = np.random.default_rng(0)
    for number in range(count):
        image = rng.integers(0, 30, (32, 48, 3), np.uint8)
        image[..., 2 if number < count // 2 else 0] += 200  # BGR
        writer.write(image)
    writer.release()
    return path


@pytest.fixture
def video(tmp_path):
    return write_video(tmp_path / "clip.avi")


def test_frames_are_rgb_and_have_time_stamps(video):
    frames = list(video_frames(str(video), "clip.avi", live=False))
    assert [frame.index for frame in frames] == list(range(COUNT))
    np.testing.assert_allclose([frame.seconds for frame in frames], np.arange(COUNT) / FPS, atol=1e-3)
    assert frames[3].where == "clip.avi, frame 3"
    assert {(frame.image.shape, frame.image.dtype.name) for frame in frames} == {((32, 48, 3), "uint8")}
    assert [int(frame.image.mean((0, 1)).argmax()) for frame in frames] == [0] * 6 + [2] * 6
    assert len({id(frame.image) for frame in frames}) == COUNT  # no frame is overwritten by the next


def test_a_truncated_file_says_so_after_its_frames(video):
    data = video.read_bytes()
    video.write_bytes(data[: len(data) * 7 // 10])
    frames, found = video_frames(str(video), "clip.avi", live=False), []
    with pytest.raises(
        Truncated, match=rf"^clip.avi: ended after \d frames, its header says {COUNT}; it seems trunc"
    ):
        found.extend(frame.index for frame in frames)
    assert 2 <= len(found) < COUNT - 1


@pytest.mark.parametrize("content", [b"", b"no video" * 100])
def test_what_is_no_video_gets_one_line(tmp_path, content, capfd):
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(UserError, match=r"^clip\.mp4: OpenCV cannot open it; is it a video, and complete\?$"):
        next(video_frames(str(tmp_path / "clip.mp4"), "clip.mp4", live=False))
    assert capfd.readouterr().err == ""


class Camera:
    """A camera that is unplugged after three frames."""

    def __init__(self, *_):
        self.left, self.released = 3, False

    def isOpened(self):
        return True

    def get(self, _):
        return -1.0

    def read(self):
        self.left -= 1
        return self.left >= 0, np.zeros((4, 4, 3), np.uint8)

    def release(self):
        self.released = True


@pytest.fixture
def camera(monkeypatch):
    camera = Camera()
    monkeypatch.setattr(capture, "_open", lambda *_: camera)
    return camera


def test_a_live_source_that_stops_says_so(camera):
    frames = video_frames(0, "camera 0", live=True)
    assert [next(frames).index for _ in range(3)] == [0, 1, 2]
    with pytest.raises(Truncated, match="camera 0: sends no more frames, after 3"):
        next(frames)
    assert camera.released


def test_closing_releases_the_camera(camera):
    frames = video_frames(0, "camera 0", live=True)
    assert next(frames).seconds >= 0
    assert not camera.released
    frames.close()
    assert camera.released


class Network:
    """A stream that is lost after two frames, cannot be reached once, and is there again; later it stays lost."""

    def __init__(self, opened):
        self.plan = {0: 2, 1: -1, 2: 1}.get(opened, -1)
        self.released = False

    def isOpened(self):
        return self.plan >= 0

    def get(self, _):
        return -1.0

    def read(self):
        self.plan -= 1
        return self.plan >= 0, np.zeros((4, 4, 3), np.uint8)

    def release(self):
        self.released = True


def test_a_lost_network_stream_is_connected_to_again(monkeypatch):
    opened, waited = [], []

    def connect(*_):
        opened.append(Network(len(opened)))
        return opened[-1]

    monkeypatch.setattr(capture, "_open", connect)
    monkeypatch.setattr(capture, "sleep", waited.append)
    frames = video_frames("rtsp://camera/1", "rtsp://camera/1", live=True)
    assert [next(frames).index for _ in range(2)] == [0, 1]
    with pytest.warns(RuntimeWarning, match="rtsp://camera/1: lost after 2 frames; connecting again"):
        found = [next(frames) for _ in range(4)]
    assert found[:3] == [None] * 3  # half a second each, before two attempts
    assert found[3].index == 2
    assert waited == [0.5] * 3
    with (
        pytest.warns(RuntimeWarning, match="lost after 3 frames"),
        pytest.raises(Truncated, match="sends no more frames, after 3"),
    ):
        list(frames)
    assert sum(waited[3:]) == sum(capture.WAITS)
    assert all(one.released for one in opened)


def test_a_stream_that_never_sent_a_frame_is_not_tried_again(monkeypatch):
    network = Network(2)
    network.plan = 0
    monkeypatch.setattr(capture, "_open", lambda *_: network)
    with pytest.raises(Truncated, match="sends no more frames, after 0"):
        next(video_frames("rtsp://camera/1", "rtsp://camera/1", live=True))
