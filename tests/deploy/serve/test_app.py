"""The server: answers equal the model's, limits hold, and nothing that comes in breaks it."""

import errno
import http.client
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

import deploy
from deploy.bundle.bundle_files import read_manifest
from deploy.cli import main
from deploy.errors import UserError
from deploy.serve.app import Limits, make_app
from deploy.tasks.registry import task_of
from tests.deploy.files.geotiffs import write_geotiff
from tests.deploy.serve.conftest import Server, png
from tests.deploy.tiny import make_image


def png_of_zeros(height: int, width: int) -> bytes:
    """A file of a few kilobytes."""
    file = BytesIO()
    Image.new("1", (width, height)).save(file, "png")
    return file.getvalue()


def test_answers_are_the_models(server, bundle):
    image = make_image(size=(40, 60))
    expected = deploy.load(bundle, "onnxruntime")(image).labels
    status, body = server.ask("POST", "/predict?format=mask", png(image))
    assert status == 200
    assert (np.asarray(Image.open(BytesIO(body))) == expected).all()
    status, body = server.ask("POST", "/predict?format=json", png(image))
    assert status == 200
    assert b'"classes"' in body


def test_the_mask_of_a_geotiff_is_png(server, tmp_path):
    write_geotiff(tmp_path / "scene.tif", make_image(), photometric="rgb")
    status, body = server.ask("POST", "/predict?format=mask", (tmp_path / "scene.tif").read_bytes())
    assert (status, Image.open(BytesIO(body)).format) == (200, "PNG")


def test_health_description_and_metrics(server):
    assert server.ask("GET", "/healthz")[0] == 200
    assert b'"classes":["red","green","blue"]' in server.ask("GET", "/")[1]
    server.ask("POST", "/predict", png(make_image()))
    status, body = server.ask("GET", "/metrics")
    assert status == 200
    assert b'edgedistill_requests_total{status="200"}' in body


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/predict", b"", 422, b"the body is empty"),
        ("/predict", b"no image", 422, b"corrupt image"),
        ("/predict", png(make_image())[:100], 422, b"corrupt image"),
        ("/predict", b"x" * 200_000, 413, b"larger than 0.1 MB"),
        ("/predict", png_of_zeros(500, 600), 413, b"the image has 300,000 pixels, more than 200,000"),
        ("/predict?format=mas", png(make_image()), 422, b"no format mas; there are mask"),
        ("/predict", png(make_image()[..., 0]), 422, b"image has 1 channel"),
        ("/other", b"", 404, b"Not Found"),
    ],
)
def test_what_cannot_be_answered(server, path, body, status, words):
    found, answer = server.ask("POST", path, body)
    assert (found, words in answer) == (status, True), answer
    assert b"/tmp" not in answer  # nothing of this machine


def test_a_body_without_length_is_limited_too(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("POST", "/predict", iter([b"x" * 50_000] * 4), encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def counted(server: Server, status: int) -> int:
    """How many requests ended with a status."""
    text = server.ask("GET", "/metrics")[1].decode()
    found = [line for line in text.splitlines() if line.startswith("edgedistill_requests_total{")]
    return sum(int(float(line.split()[-1])) for line in found if f'"{status}"' in line)


def test_clients_that_go_away_are_counted(server):
    before = counted(server, 499)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as gone:
        gone.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
        time.sleep(0.2)
    until = time.monotonic() + 10
    while counted(server, 499) == before and time.monotonic() < until:
        time.sleep(0.05)
    assert counted(server, 499) > before


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (MemoryError(), 413, "the memory is too small"),
        (OSError("no space"), 500, "Internal Server Error"),
        (UserError("no image"), 422, "no image"),
    ],
)
@pytest.mark.parametrize("step", ["written", "predict_file"])
def test_failures_are_answered_and_counted(step, error, status, words, bundle, monkeypatch):
    def failing(*_):
        raise error

    manifest = read_manifest(bundle)
    model = deploy.load(bundle, "onnxruntime", threads=1)
    app = make_app(model, task_of(manifest), manifest, Limits())
    monkeypatch.setattr(f"deploy.serve.app.{step}", failing)
    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.post("/predict", content=png(make_image()))
        metrics = client.get("/metrics").text
    assert (answer.status_code, words in answer.text) == (status, True)
    assert f'edgedistill_requests_total{{status="{status}"}} 1.0' in metrics


def test_too_little_memory_for_the_network_is_no_fault_of_the_image(bundle, monkeypatch):
    def failing(*_):
        raise MemoryError

    manifest = read_manifest(bundle)
    model = deploy.load(bundle, "onnxruntime", threads=1)
    monkeypatch.setattr(type(model), "__call__", failing)
    with TestClient(make_app(model, task_of(manifest), manifest, Limits())) as client:
        assert client.post("/predict", content=png(make_image())).status_code == 413


def test_a_full_disk_is_no_fault_of_the_image(bundle, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    manifest = read_manifest(bundle)
    app = make_app(deploy.load(bundle, "onnxruntime", threads=1), task_of(manifest), manifest, Limits())
    monkeypatch.setattr("os.fsync", full)
    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.post("/predict", content=png(make_image()))
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")


def rss(process: int) -> int:
    for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_thousand_requests_leave_nothing_in_memory(server):
    body = png(make_image(size=(64, 96)))

    def one(_: int) -> int:
        return server.ask("POST", "/predict", body)[0]

    with ThreadPoolExecutor(8) as clients:
        list(clients.map(one, range(200)))  # warm
        before = rss(server.process.pid)
        found = list(clients.map(one, range(1000)))
    assert set(found) == {200}
    grown = rss(server.process.pid) - before
    assert grown < 8_000, f"{grown} KiB more"


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=B", "application/json"])
def test_a_form_is_answered_with_the_command(kind, bundle):
    manifest = read_manifest(bundle)
    app = make_app(deploy.load(bundle, "onnxruntime", threads=1), task_of(manifest), manifest, Limits())
    with TestClient(app) as client:
        answer = client.post("/predict", content=png(make_image()), headers={"content-type": kind})
    assert (answer.status_code, "curl --data-binary @photo.png" in answer.text) == (415, True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--workers 0", "--workers 0: must be more than 0"),
        ("--max-pixels 0", "--max-pixels 0: must be more than 0"),
        ("--max-mb nan", "--max-mb nan: must be more than 0"),
        ("--timeout inf", "--timeout inf: must be"),
        ("--waiting -1", "--waiting -1: must be 0 or more"),
        ("--port 99999", "--port 99999: choose one of 1 to 65535"),
    ],
)
def test_mistakes_in_options(bundle, options, words):
    with pytest.raises(UserError, match=words):
        main(["serve", str(bundle), *options.split()])


def test_a_port_in_use(bundle, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port}: Address already in use"):
            main(["serve", str(bundle), "--threads", "1", "--port", str(port)])
    assert "http" not in capsys.readouterr().out  # announces nothing


def test_mistakes(bundle, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="holds neither manifest"):
        main(["serve", str(tmp_path)])
    monkeypatch.setattr("deploy.serve.command.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'edgedistill\[serve\]'"):
        main(["serve", str(bundle)])
