"""A bundle, and `edgedistill serve` of it in a process of its own."""

import http.client
import socket
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.deploy.tiny import make_bundle

OPTIONS = (
    "--threads",
    "1",
    "--max-mb",
    "0.1",
    "--max-pixels",
    "200000",
    "--timeout",
    "2",
    "--waiting",
    "8",
    "--backend",
    "onnxruntime",
)


def png(image: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


FILES = 128
"""Files, connections among them, that a server of the tests may open at once."""


class Server:
    """`edgedistill serve` in a process of its own, on a free port of the loopback interface."""

    def __init__(self, bundle: Path, log: Path, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "deploy", "serve", str(bundle), "--port", str(self.port)]
        limit = ["sh", "-c", f'ulimit -n {FILES}; exec "$@"', "sh"]
        self.log = log
        with log.open("w", encoding="utf-8") as file:  # a pipe that nobody reads would stop the server
            self.process = subprocess.Popen(
                [*limit, *command, *OPTIONS, *options], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT
            )
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                if self.ask("GET", "/readyz")[0] == 200:
                    return
            except OSError:
                time.sleep(0.05)
        self.stop()
        raise AssertionError(log.read_text(encoding="utf-8"))

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def connect(self, first: bytes = b"") -> socket.socket:
        """A connection, and what it sends first."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.sendall(first)
        return connection

    def begin(self, length: int) -> socket.socket:
        """A request whose body, of `length` bytes, the server waits for."""
        head = (
            f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        )
        connection = self.connect(head.encode())
        assert b"100 Continue" in connection.recv(1000)
        return connection

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@pytest.fixture(scope="package")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("serve") / "bundle"
    make_bundle(folder)
    return folder


@pytest.fixture(scope="package")
def server(bundle, tmp_path_factory):
    running = Server(bundle, tmp_path_factory.mktemp("serve") / "log")
    yield running
    running.stop()
