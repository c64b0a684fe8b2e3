"""terminal.py and errors.py: neither encoding nor end of stdout and stderr stops a command or hides its result."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from deploy import terminal
from tests.conftest import ROOT
from tests.deploy.tiny import make_bundle, make_image

COMMAND = [sys.executable, "-m", "edgedistill"]
ENCODINGS = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "cp1252"},
    {"LC_ALL": "C", "PYTHONUTF8": "0"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A bundle, and images of which two have names that terminals cannot show."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("text")
    make_bundle(folder / "bundle")
    (folder / "images").mkdir()
    for name in (b"plain.png", "Ströme.png".encode(), b"caf\xe9.png", b"a\x1b[31m\nerror: b.png"):
        with open(os.fsencode(folder / "images") + b"/" + name, "wb") as file:
            Image.fromarray(make_image()).save(file, "png")
    return folder


def run(*arguments: str | Path, cwd: Path, env: dict[str, str] | None = None, **streams: Any):
    env = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    result = subprocess.run([*COMMAND, *arguments], cwd=cwd, env=env, timeout=60, check=False, **streams)
    assert b"Traceback" not in (result.stderr or b"")
    return result


@pytest.mark.parametrize("env", ENCODINGS, ids=lambda env: "-".join(env.values()))
def test_what_can_be_shown_is_shown_the_rest_escaped(folder, env):
    for command in (
        ["info", "bundle"],
        ["verify", "bundle", "--backend", "onnxruntime"],
        ["--help"],
        ["presets"],
    ):
        result = run(*command, cwd=folder, env=env)
        assert (result.returncode, result.stderr) == (0, b"")
    result = run(
        "predict", "bundle", "images", "--backend", "onnxruntime", "--out", "out", cwd=folder, env=env
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 5
    assert b"\x1b" not in result.stdout
    assert [line.split(b"  ")[0] for line in lines if line[:1] in b"ap"] == [
        rb"a\x1b[31m\nerror: b.png",
        b"plain.png",
    ]
    assert any(line.startswith(b"caf\\udce9.png") for line in lines)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["info", "bundle"], 0),
        (["verify", "bundle", "--backend", "onnxruntime"], 0),
        (["info", "nowhere"], 2),
    ],
)
def test_streams_that_are_closed_full_or_read_by_nobody(folder, command, code):
    def shell(redirection: str) -> tuple[int, bytes]:
        script = f'exec "$@" {redirection}'
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        result = subprocess.run(
            ["bash", "-c", script, "bash", *COMMAND, *command],
            cwd=folder,
            env=env,
            capture_output=True,
            timeout=60,
        )
        assert b"Traceback" not in result.stdout + result.stderr
        return result.returncode, result.stdout + result.stderr

    assert shell(">&-")[0] == code
    assert shell("2>&-")[0] == code
    assert shell("<&- >&- 2>&-") == (code, b"")
    full = shell(">/dev/full")
    assert full[0] == 2
    assert code == 2 or b"error: the output: the disk is full; the work itself is done" in full[1]
    reader, writer = os.pipe()
    os.close(reader)
    result = run(*command, cwd=folder, stdout=writer)
    os.close(writer)
    assert result.returncode == (code or 141)
    assert len(result.stderr.splitlines()) == (1 if code else 0)


def test_work_goes_on_when_the_reader_has_gone(folder, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    command = (
        "predict",
        folder / "bundle",
        folder / "images",
        "--backend",
        "onnxruntime",
        "--out",
        tmp_path / "out",
    )
    result = run(*command, cwd=tmp_path, stdout=writer)
    os.close(writer)
    assert (result.returncode, result.stderr) == (141, b"")
    labels = list((tmp_path / "out").glob("*_mask.png"))
    assert len(labels) == 4


def test_a_file_never_gets_the_number_of_a_closed_stdout(tmp_path):
    """What is printed would end up in it."""
    code = (
        "import os, sys; from deploy.errors import exit_with_one_line\n"
        "def main():\n"
        "    with open('data', 'wb') as file:\n"
        "        os.write(1, b'printed by a library'); print('printed'); file.write(b'data')\n"
        "exit_with_one_line(main)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    script = 'exec "$@" >&- 2>&-'
    subprocess.run(
        ["bash", "-c", script, "bash", sys.executable, "-c", code], cwd=tmp_path, env=env, check=True
    )
    assert (tmp_path / "data").read_bytes() == b"data"


def test_on_a_terminal_colors_pass_and_nothing_else():
    code = r"""
from deploy import terminal
from deploy.errors import exit_with_one_line
exit_with_one_line(lambda: print("\x1b[1mbold\x1b[0m", "\x1b[2J", "\x1b]0;title\x07"))
"""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=theirs)
    assert process.wait(60) == 0
    assert os.read(ours, 1000).strip() == b"\x1b[1mbold\x1b[0m \\x1b[2J \\x1b]0;title\\x07"
    os.close(ours)
    os.close(theirs)


def test_a_working_directory_that_has_gone(folder, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    env = {**os.environ, "PYTHONPATH": str(ROOT)}

    def shell(*arguments: str | Path):
        script = 'rmdir "$PWD"; exec "$@"'
        command = ["bash", "-c", script, "bash", *COMMAND, *map(str, arguments)]
        gone.mkdir(exist_ok=True)
        return subprocess.run(command, cwd=gone, env=env, capture_output=True, timeout=60)

    assert shell("info", folder / "bundle").returncode == 0
    result = shell("predict", folder / "bundle", folder / "images", "--backend", "onnxruntime")
    assert result.returncode == 2
    assert result.stderr == b"error: the working directory has been removed; change to another one\n"


@pytest.mark.parametrize("module", ["edgedistill", "deploy"])
def test_an_interrupt_while_libraries_are_imported(folder, module):
    """At most moments; Python itself has a traceback for the first milliseconds, before any of this package runs."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-X",
        "importtime",
        "-m",
        module,
        "verify",
        "bundle",
        "--backend",
        "onnxruntime",
    ]
    for library in ("deploy.terminal", "numpy._core.multiarray", "deploy.cli", "PIL.Image"):
        process = subprocess.Popen(
            command, cwd=folder, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        text = b""
        assert process.stderr is not None
        for line in process.stderr:  # a line as soon as each module has been imported
            if line.endswith(b" " + library.encode() + b"\n"):
                process.send_signal(signal.SIGINT)
                break
        time.sleep(0)
        text = process.stderr.read()
        assert b"Traceback" not in text, (library, text)
        assert process.wait(60) in (130, 0)
        process.stderr.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_prints_although_another_thread_printed_when_it_was_forked():
    held, leave = threading.Event(), threading.Event()

    def hold():
        with terminal._lock:
            held.set()
            leave.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    held.wait(60)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        with terminal._lock:
            os._exit(7)
    leave.set()
    other.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_lines_appear_at_once_in_a_file(tmp_path):
    script = (
        "import time; from deploy.terminal import prepare_streams as f; f(); print('begun'); time.sleep(60)"
    )
    with open(tmp_path / "log", "w", encoding="utf-8") as log:
        process = subprocess.Popen([sys.executable, "-c", script], stdout=log, cwd=ROOT)
    try:
        end = time.monotonic() + 60
        while (tmp_path / "log").read_text() != "begun\n":
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
