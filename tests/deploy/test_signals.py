"""Signals that stop a command: what it says, its exit code, and that nothing half-written stays."""

import os
import signal
import subprocess
import sys
import time

import pytest

from deploy.signals import Stopped, stopping_by_exception

WRITER = """
import sys, time
from pathlib import Path
from deploy.errors import exit_with_one_line
from deploy.files.atomic import atomic_write

def main():
    with atomic_write(Path(sys.argv[1])) as file:
        file.write(b"half")
        print("writing", flush=True)
        time.sleep(60)

exit_with_one_line(main)
"""


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGTERM, "stopped by SIGTERM"), (signal.SIGHUP, "stopped by SIGHUP"), (signal.SIGINT, "SIGINT")],
)
def test_a_command_stops_with_a_line_and_the_signals_code(tmp_path, number, words):
    command = [sys.executable, "-c", WRITER, str(tmp_path / "file")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(number)
        _, told = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert words in told
    assert "Traceback" not in told
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_is_ignored_stays_ignored():
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping_by_exception():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, old)


def test_the_handlers_of_before_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Stopped, match="SIGTERM"), stopping_by_exception():
        _terminated()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def _terminated() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
