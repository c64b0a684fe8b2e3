"""The programs for devices: C++, ROS 2 (a stand-in for its packages) and GStreamer (its loop, on a file)."""

import importlib.util
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image as Picture

import edgedistill
from deploy.errors import UserError
from deploy.files.atomic import write_json
from tests.conftest import ROOT
from tests.deploy.tiny import make_bundle, make_image

CPP = ROOT / "examples" / "cpp"
SIZE = (32, 48)


def folder_of(package: str) -> Path:
    """Where an installed package lies; the test is skipped without it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def program(request, tmp_path_factory):
    """The C++ program, compiled with the library of the Python package."""
    if not shutil.which("cmake") or not shutil.which("c++"):
        pytest.skip("cmake and a C++ compiler are not installed")
    build = tmp_path_factory.mktemp(request.param)
    options = [f"-DENGINE={request.param}", f"-DJSON_INCLUDE={folder_of('nlohmann_json') / 'include'}"]
    if request.param == "openvino":
        options.append(f"-DOpenVINO_DIR={folder_of('openvino') / 'cmake'}")
    else:
        options += onnxruntime_paths(build)
    for command in (["cmake", "-S", CPP, "-B", build, *options], ["cmake", "--build", build]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "segment"


def onnxruntime_paths(folder: Path) -> list[str]:
    """Where cmake finds the headers of ONNX Runtime and the library of its Python package, linked to by its names."""
    places = (f"{sys.prefix}/include", "/usr/include", "/usr/local/include", "/opt/onnxruntime/include")
    headers = (Path(place, *below) for place in places for below in (("onnxruntime",), ()))
    found = next((one for one in headers if (one / "onnxruntime_cxx_api.h").is_file()), None)
    if found is None:
        pytest.skip("the headers of ONNX Runtime are not installed (make headers)")
    library = next((folder_of("onnxruntime") / "capi").glob("libonnxruntime.so.*"), None)
    if library is None:
        pytest.skip("this package of ONNX Runtime has no shared library")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(library)
    return [f"-DORT_INCLUDE={found}", f"-DORT_LIBRARY={folder / 'libonnxruntime.so'}"]


def ran(program: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program), *map(str, words)], capture_output=True, text=True, timeout=60)


@pytest.mark.slow
def test_cpp_gives_the_labels_of_python(program, tmp_path):
    make_bundle(tmp_path / "bundle")
    image = make_image()
    Picture.fromarray(image).resize(SIZE[::-1]).save(tmp_path / "a.ppm")
    image = np.asarray(Picture.open(tmp_path / "a.ppm"))
    done = ran(program, tmp_path / "bundle", tmp_path / "a.ppm", tmp_path / "mask.pgm")
    assert done.returncode == 0, done.stderr
    expected = edgedistill.load(tmp_path / "bundle")(image).labels
    assert np.asarray(Picture.open(tmp_path / "mask.pgm")).tobytes() == expected.tobytes()
    assert len(np.unique(expected)) > 1
    counts = dict(line.split() for line in done.stdout.splitlines())
    assert {name: int(count) for name, count in counts.items()} == {
        name: int((expected == index).sum()) for index, name in enumerate(("red", "green", "blue"))
    }


@pytest.mark.slow
def test_cpp_refuses_what_it_cannot_do(program, tmp_path):
    make_bundle(tmp_path / "bundle")
    picture = Picture.fromarray(make_image()).resize(SIZE[::-1])
    picture.save(tmp_path / "a.ppm")
    picture.resize((20, 20)).save(tmp_path / "small.ppm")
    (tmp_path / "short.ppm").write_bytes((tmp_path / "a.ppm").read_bytes()[:-5])
    for words, message in (
        (("none", "a.ppm"), "none: holds no manifest.json"),
        (("bundle", "small.ppm"), "is 20x20x3, the network takes 32x48x3"),
        (("bundle", "short.ppm"), "ends too early"),
        (("bundle", "none.ppm"), "is no binary PPM"),
    ):
        done = ran(program, *(tmp_path / word for word in words), tmp_path / "mask.pgm")
        assert done.returncode == 2
        assert message in done.stderr
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text()) | {"threshold": 0.5}
    write_json(tmp_path / "bundle" / "manifest.json", manifest)
    assert (
        "has a threshold" in ran(program, tmp_path / "bundle", tmp_path / "a.ppm", tmp_path / "m.pgm").stderr
    )
    with (tmp_path / "bundle" / "model.onnx").open("ab") as file:
        file.write(b"x")
    write_json(tmp_path / "bundle" / "manifest.json", manifest | {"threshold": None})
    assert (
        "is not the file" in ran(program, tmp_path / "bundle", tmp_path / "a.ppm", tmp_path / "m.pgm").stderr
    )


class FakeNode:
    """What the node uses of `rclpy.node.Node`."""

    parameters: ClassVar[dict[str, str]] = {}

    def __init__(self, name):
        self.name, self.published, self.errors, self.listening = name, [], [], 0

    def declare_parameter(self, name, default):
        return SimpleNamespace(value=self.parameters.get(name, default))

    def create_publisher(self, kind, topic, depth):
        assert depth == 1
        publish = lambda message: self.published.append((topic, message))  # noqa: E731
        return SimpleNamespace(publish=publish, get_subscription_count=lambda: self.listening)

    def create_subscription(self, kind, topic, callback, qos):
        self.subscribed = (topic, callback, qos)

    def get_logger(self):
        return SimpleNamespace(error=lambda text, throttle_duration_sec: self.errors.append(text))


class FakeImage(SimpleNamespace):
    """`sensor_msgs.msg.Image`: its fields, given by name."""


@pytest.fixture
def node(tmp_path, monkeypatch):
    make_bundle(tmp_path / "bundle")
    names = ("rclpy", "rclpy.node", "rclpy.qos", "sensor_msgs", "sensor_msgs.msg")
    modules = {name: ModuleType(name) for name in names}
    modules["rclpy.node"].Node = FakeNode
    modules["rclpy.qos"].qos_profile_sensor_data = "sensor data"
    modules["sensor_msgs.msg"].Image = FakeImage
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(FakeNode, "parameters", {"bundle": str(tmp_path / "bundle")})
    return runpy.run_path(str(ROOT / "examples" / "ros2_node.py"))["Segmenter"]()


def message_of(image, encoding, padding=0):
    rows = np.pad(image.reshape(len(image), -1), ((0, 0), (0, padding)))
    return FakeImage(
        header="stamp",
        height=len(image),
        width=image.shape[1],
        encoding=encoding,
        step=rows.shape[1],
        data=rows.tobytes(),
    )


@pytest.mark.parametrize(("encoding", "padding"), [("rgb8", 0), ("rgb8", 7), ("bgr8", 0)])
def test_ros_masks_are_those_of_the_model(node, tmp_path, encoding, padding):
    image = make_image()
    topic, callback, qos = node.subscribed
    assert (topic, qos, node.name) == ("image", "sensor data", "segmenter")
    callback(message_of(image[..., ::-1] if encoding == "bgr8" else image, encoding, padding))
    ((topic, mask),) = node.published  # nobody listens to overlays
    expected = edgedistill.load(tmp_path / "bundle")(image).labels
    assert (topic, mask.header, mask.encoding, mask.step) == ("mask", "stamp", "mono8", image.shape[1])
    assert mask.data == expected.tobytes()
    node.listening = 1
    callback(message_of(image, "rgb8"))
    topic, drawn = node.published[-1]
    assert (topic, drawn.encoding, drawn.step) == ("overlay", "rgb8", 3 * image.shape[1])
    assert len(drawn.data) == image.size


def test_ros_images_of_another_kind_are_logged(node):
    image = make_image()
    node.on_image(message_of(image[..., :1], "mono8"))
    node.on_image(FakeImage(encoding="16UC1"))
    assert node.published == []
    assert node.errors[1] == "images are 16UC1; publish rgb8, bgr8, mono8"
    assert "channel" in node.errors[0]


def test_a_ros_node_without_a_bundle_ends_in_one_line(node, monkeypatch):
    ended = []
    monkeypatch.setattr(FakeNode, "parameters", {"bundle": "nowhere"})
    sys.modules["rclpy"].init = lambda: None
    sys.modules["rclpy"].try_shutdown = lambda: ended.append(True)
    with pytest.raises(UserError, match="nowhere"):
        runpy.run_path(str(ROOT / "examples" / "ros2_node.py"))["main"]()
    assert ended == [True]


def test_gstreamer_loop_on_a_video(tmp_path, capsys):
    cv2 = pytest.importorskip("cv2")
    make_bundle(tmp_path / "bundle")
    video = cv2.VideoWriter(str(tmp_path / "a.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (96, 64))
    for seed in range(5):
        video.write(cv2.resize(make_image(seed=seed), (96, 64)))
    video.release()
    loop = runpy.run_path(str(ROOT / "examples" / "gstreamer_loop.py"))
    out = tmp_path / "drawn.mp4"
    assert loop["main"](str(tmp_path / "bundle"), str(tmp_path / "a.mp4"), str(out)) == 5
    assert capsys.readouterr().out == f"5 frames, {out}\n"
    assert len(list(loop["frames"](str(out)))) == 5
    with pytest.raises(UserError, match="cannot be opened"):
        next(loop["frames"]("nosuchsrc ! appsink"))
    with pytest.raises(UserError, match=r"nowhere/a\.mp4: cannot be written"):
        loop["main"](str(tmp_path / "bundle"), str(tmp_path / "a.mp4"), str(tmp_path / "nowhere" / "a.mp4"))
