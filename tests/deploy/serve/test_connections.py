"""Clients that are slow, many or gone harm no others, and a signal lets requests finish."""

import os
import signal
import socket
import threading
import time
from contextlib import ExitStack, closing

import pytest
import uvicorn

from deploy.serve.connections import limited
from tests.deploy.serve.conftest import FILES, Server, png
from tests.deploy.tiny import make_image

UNFINISHED = b"POST /predict HTTP/1.1\r\nHost: a\r\n"


def test_a_slow_request_is_ended_and_hurts_no_other(server):
    with server.connect(UNFINISHED + b"Content-Length: 1000\r\n\r\nabc") as slow:
        assert server.ask("POST", "/predict", png(make_image()))[0] == 200
        assert b"408" in slow.recv(200)


def send_again_and_again(connection: socket.socket) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        connection.sendall(b"a: b\r\n")
        time.sleep(0.05)


def test_connections_without_a_whole_request_are_closed(server):
    with server.connect() as idle, server.connect(UNFINISHED) as slow, server.connect() as second:
        second.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"200 OK" in second.recv(1000)
        second.sendall(UNFINISHED)
        with pytest.raises(OSError, match=r"Broken pipe|reset"):  # although something arrives again and again
            send_again_and_again(second)
        assert idle.recv(1000) == b""
        assert slow.recv(1000) == b""


def test_slow_bodies_take_no_places(server):
    with ExitStack() as slow:
        for _ in range(12):  # the server has 9 places
            slow.enter_context(server.begin(1000))
        assert server.ask("POST", "/predict", png(make_image()))[0] == 200


def test_more_connections_than_files(server):
    with ExitStack() as many:
        for _ in range(FILES + 20):
            many.enter_context(server.connect(UNFINISHED))
            time.sleep(0.005)  # a full queue of the system would be tried again after seconds
        assert server.ask("GET", "/healthz")[0] == 200
    assert "Traceback" not in server.log.read_text(encoding="utf-8")


def test_a_connection_too_many_is_refused_while_all_are_at_work(bundle, tmp_path):
    server = Server(bundle, tmp_path / "log", "--timeout", "60")  # none may end before the last one begins
    with ExitStack() as many:
        many.callback(server.stop)
        for _ in range(FILES // 2):
            many.enter_context(server.begin(1000))
        with server.connect() as last:
            assert last.recv(1000).startswith(b"HTTP/1.1 503 ")


async def answer_at_length(scope, _, send) -> None:
    """An application whose answer fills all buffers on its way."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(1 << 24)})


def test_a_client_that_reads_no_answer_is_left():
    connection, backlog = limited(0.2)
    server = uvicorn.Server(
        # without a configuration of logging, which closes what other handlers of this process write to
        uvicorn.Config(answer_at_length, http=connection, lifespan="off", backlog=backlog, log_config=None)
    )
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        running = threading.Thread(target=server.run, args=([listener],), daemon=True)
        running.start()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(30)
        client.connect(listener.getsockname())
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(10) == b"HTTP/1.1 2"
        until = time.monotonic() + 30
        while server.server_state.connections and time.monotonic() < until:
            time.sleep(0.02)
        left = len(server.server_state.connections)
        server.should_exit = server.force_exit = True
        running.join(30)
    assert left == 0


def stops_listening(server: Server) -> bool:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            server.connect().close()
        except ConnectionRefusedError:
            return True
        time.sleep(0.02)
    return False


def test_a_signal_lets_requests_finish(bundle, tmp_path):
    server = Server(bundle, tmp_path / "log", "--timeout", "60")
    body = png(make_image(size=(64, 96)))
    try:
        with closing(server.begin(len(body))) as waiting:
            waiting.sendall(body[:100])
            os.kill(server.process.pid, signal.SIGTERM)
            assert stops_listening(server)
            waiting.sendall(body[100:])
            assert waiting.recv(1000).startswith(b"HTTP/1.1 200 OK")
        assert server.process.wait(40) in (0, 143)
    finally:
        server.stop()
    assert "Traceback" not in server.log.read_text(encoding="utf-8")
