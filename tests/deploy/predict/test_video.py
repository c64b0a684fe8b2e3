"""`edgedistill predict` on videos: every frame is predicted and drawn into a video."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deploy.cli import main
from deploy.errors import UserError
from deploy.inference.call import Timings
from deploy.look import Look
from deploy.predict import video
from deploy.predict.command import _drawing
from deploy.predict.sources import is_moving
from deploy.tasks.regression.levels import LEVELS
from deploy.tasks.regression.model import RegressionModel, RegressionResult
from deploy.visualize import safe_colors
from tests.conftest import ROOT

cv2 = pytest.importorskip("cv2")
FRAMES, RATE = 12, 10.0


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Frames of 48×32 that are red, then blue."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE, (48, 32))
    for index in range(FRAMES):
        frame = np.zeros((32, 48, 3), np.uint8)
        frame[..., 2 if index < FRAMES // 2 else 0] = 255  # BGR
        writer.write(frame)
    writer.release()
    return path


def frames_of(path: Path) -> tuple[list[np.ndarray], float]:
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    rate = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return frames, rate


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_every_frame_is_drawn_at_the_rate_of_the_video(prefix, bundle, clip, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["predict", str(bundle), f"{prefix}{clip}", "--out", str(out), "--opacity", "1"]) == 0
    assert f"{FRAMES} frames predicted by" in capsys.readouterr().out
    frames, rate = frames_of(out / "clip.mp4")
    assert rate == pytest.approx(RATE)
    assert len(frames) == FRAMES
    assert (
        np.abs(frames[1].mean((0, 1)) - (200, 30, 30)).max() < 20
    )  # the color of the class; the codec is lossy
    assert np.abs(frames[-1].mean((0, 1)) - (30, 30, 200)).max() < 20
    assert [path.name for path in out.iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_the_video_that_is_predicted_is_never_overwritten(prefix, bundle, clip, tmp_path, monkeypatch):
    own = clip.rename(tmp_path / "clip.mp4")
    content = own.read_bytes()
    monkeypatch.setattr("deploy.predict.command.load", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(UserError, match=r"--out .*would overwrite the video .*clip\.mp4; choose another"):
        main(["predict", str(bundle), f"{prefix}{own}", "--out", str(tmp_path)])
    assert own.read_bytes() == content


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from deploy.errors import UserError
from deploy.inference.call import Timings
from deploy.look import Look
from deploy.predict import video
from deploy.predict.command import _drawing

path = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # stands for a full disk
frames = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), np.uint8)
try:
    with video._writer(path, 10.0) as write:
        for frame in frames:
            write(frame)
except UserError as error:
    print(error)
"""


def test_on_a_full_disk_the_older_video_stays(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"older")
    run = [sys.executable, "-c", FULL, str(path)]
    printed = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    assert f"{path}: only 0 of 60 frames could be written; free some space" in printed
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


def test_frames_of_another_size_are_resized_with_a_warning(tmp_path):
    """As from a camera that comes back with another resolution; OpenCV writes only frames of the first size."""
    red = np.zeros((32, 48, 3), np.uint8) + np.array([250, 0, 0], np.uint8)
    large = np.repeat(np.repeat(red, 2, 0), 2, 1)
    with video._writer(tmp_path / "out.mp4", RATE) as write:
        write(red)
        with pytest.warns(RuntimeWarning, match="frames were 48×32 pixels and are now 96×64"):
            write(large)
        write(large)
        write(red)
    frames, _ = frames_of(tmp_path / "out.mp4")
    assert [frame.shape for frame in frames] == [red.shape] * 4


def test_beside_and_a_number_of_frames(bundle, clip, tmp_path):
    out = tmp_path / "out"
    assert (
        main(
            [
                "predict",
                str(bundle),
                str(clip),
                "--out",
                str(out),
                "--save",
                "overlay,beside",
                "--frames",
                "3",
            ]
        )
        == 0
    )
    frames, _ = frames_of(out / "clip.mp4")
    assert len(frames) == 3
    assert frames[0].shape == (32, 96, 3)


class Live:
    """A model whose stream comes with these time stamps, in shades of gray."""

    def __init__(self, *seconds: float):
        self.seconds = seconds

    def stream(self, _target, draw):
        for index, seconds in enumerate(self.seconds):
            shade = np.full((32, 48, 3), 40 * index + 20, np.uint8)
            yield SimpleNamespace(
                seconds=seconds, picture=draw(shade, None), dropped=0, where=f"frame {index}"
            )


def test_a_live_source_takes_as_long_in_the_video(tmp_path):
    """Frames are repeated until the next one came, and left out where they came too fast."""
    model: Any = Live(5.0, 5.2, 5.201, 6.0)
    found = video.predict_video(model, "rtsp://camera", tmp_path / "out.mp4", lambda frame, _: frame)
    assert found.frames == 4
    frames, rate = frames_of(tmp_path / "out.mp4")
    assert rate == video.USUAL_FPS
    shades = [round((float(frame.mean()) - 20) / 40) for frame in frames]
    assert shades == [0] * 5 + [1] + [2] * 19 + [3]


def test_a_file_without_a_rate_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "ask_rate", lambda _: 0.0)
    model: Any = Live(0.0, 0.0)
    with pytest.warns(RuntimeWarning, match="has 25 frames/s, as the source does not tell its own"):
        video.predict_video(model, "clip.mjpeg", tmp_path / "out.mp4", lambda frame, _: frame)
    assert len(frames_of(tmp_path / "out.mp4")[0]) == 2


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--save", "overlay,json"], "--save json"),
        (["--save", "mask"], "--save mask"),
        (["--probabilities"], "--probabilities"),
        (["--resume"], "--resume"),
    ],
)
def test_options_of_images_are_refused(options, named, bundle, clip, tmp_path):
    with pytest.raises(UserError, match=rf"^{named}: is for images; .*--save overlay or beside.*as images$"):
        main(["predict", str(bundle), str(clip), "--out", str(tmp_path / "out"), *options])
    assert not (tmp_path / "out").exists()


def test_maps_are_drawn_as_the_options_say():
    """A regression network once ignored --opacity and --palette in videos."""
    labels = np.full((4, 6), 7, np.uint8)
    result = RegressionResult(np.zeros((4, 6), np.float32), labels, labels > 0, Timings(0, 0, 0))
    nothing: Any = None
    model = RegressionModel(nothing, LEVELS, nothing)
    draw = _drawing(model, Look(opacity=1.0), safe_colors(LEVELS), beside=False)
    assert (draw(np.zeros((4, 6, 3), np.uint8), result) == safe_colors(LEVELS)[7].color).all()


def test_a_file_that_is_no_video_leaves_nothing(bundle, tmp_path):
    (tmp_path / "notes.txt").write_text("no video")
    with pytest.raises(UserError, match="OpenCV cannot open it"):
        main(["predict", str(bundle), str(tmp_path / "notes.txt"), "--out", str(tmp_path / "out")])
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    ("given", "moving"),
    [("0", True), ("/dev/video1", True), ("rtsp://a/b", True), ("photo.png", False), ("missing.mp4", False)],
)
def test_what_moves(given, moving):
    assert is_moving(given) is moving


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_stopped_video_is_kept(bundle, tmp_path, number, code):
    """A long video, stopped by a signal, holds the frames until then."""
    path = tmp_path / "long.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE, (640, 480))
    for index in range(3000):
        writer.write(np.full((480, 640, 3), index % 256, np.uint8))
    writer.release()
    out = tmp_path / "out"
    command = [sys.executable, "-m", "deploy", "predict", str(bundle), str(path), "--out", str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while time.monotonic() < until and not list(out.glob(".*.mp4")):
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    if process.returncode == 0 and "stopped" not in errors:
        pytest.skip("all frames were predicted before the signal came")
    assert process.returncode == code
    frames, _ = frames_of(out / "long.mp4")
    assert 0 < len(frames) < 3000
    assert [one.name for one in out.iterdir()] == ["long.mp4"]
