"""What a shell offers for what has been typed; quick, as nothing is run and torch is not imported."""

import io
import os
import pty
import subprocess
import sys

import pytest

from deploy.errors import UserError
from distill import cli
from distill.completion import complete, main_parser
from distill.students.command import _record
from tests.conftest import ROOT

argcomplete = pytest.importorskip("argcomplete")


def refused(*_, **__):
    raise OSError


def offered(line: str, monkeypatch) -> list[str]:
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    monkeypatch.setenv("_ARGCOMPLETE_IFS", "\n")
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line.encode())))
    monkeypatch.setattr(
        os, "fdopen", refused
    )  # argcomplete would take descriptor 9 over, which is another's here
    written = io.StringIO()
    complete(output_stream=written, exit_method=lambda _: None)
    return [word.strip() for word in written.getvalue().split("\n")]


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("edgedistill pred", ["predict", "predict-raster", "predict-many"]),
        ("edgedistill run fol", ["folder", "folder-cpu", "folder-gpu"]),
        ("edgedistill run folder --data.resize ", ["stretch", "tile"]),
        ("edgedistill run folder --student-train.ste", ["--student-train.steps"]),
        ("edgedistill inspect folder --data.no-ca", ["--data.no-cache"]),
        ("edgedistill pretrain photos --stu", ["--student"]),
        ("edgedistill predict bundle a.png --pal", ["--palette"]),
        ("edgedistill predict bundle a.png --palette ", ["bundle", "safe"]),
        ("edgedistill verify bundle --sandbox-s", ["--sandbox-seconds"]),
        ("edgedistill build bundle --qui", ["--quiet"]),
        ("edgedistill completion ", ["bash", "zsh", "fish"]),
        ("edgedistill nonsense --", []),
    ],
)
def test_offers(typed, wanted, monkeypatch):
    found = [word for word in offered(typed, monkeypatch) if word]
    assert set(wanted) <= set(found)
    if wanted:
        assert all(not word.startswith("--") or word in wanted for word in found if typed[-1] != " ")


@pytest.mark.parametrize("command", ["info", "serve", "sbom", "students", "tiles", "inspect"])
def test_every_command_has_options(command, capsys):
    parser = main_parser(command)
    (commands,) = (action for action in parser._actions if hasattr(action, "choices") and action.choices)
    assert len(commands.choices[command]._actions) >= 4  # --help, --quiet, --verbose, and its own
    assert capsys.readouterr().out == "", "nothing is run"


def test_neither_torch_nor_runtimes_are_imported():
    code = "import sys, distill.completion as c; c.main_parser('run'); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert not {"torch", "onnxruntime", "tyro", "matplotlib", "cv2"} & set(done.stdout.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_code_for_a_shell(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    code = capsys.readouterr().out
    assert "edgedistill" in code
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=code, text=True, check=True, timeout=30)


def test_without_argcomplete(monkeypatch):
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install argcomplete"):
        cli.main(["completion", "bash"])


@pytest.mark.parametrize("colored", [True, False])
def test_no_color_is_honored(colored):
    """On a terminal the help of a run has colors, unless NO_COLOR is set."""
    ours, its = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "NO_COLOR": "" if colored else "1"}
    if colored:
        del env["NO_COLOR"]
    command = [sys.executable, "-m", "edgedistill", "run", "smoke", "--help"]
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=its, stderr=its, stdin=its) as process:
        os.close(its)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the terminal has been closed
                break
            if not piece:
                break
            shown += piece
        assert process.wait(timeout=60) == 0
    os.close(ours)
    assert (b"\x1b[1m" in shown) == colored
    assert b"edgedistill run smoke" in shown or colored


def test_students_as_json():
    one, other = map(_record, ("edge-small  1.46  0.20", "ggcnn  needs one channel"))
    assert one == {"name": "edge-small", "parameters M": 1.46, "GMAC": 0.2}
    assert other == {"name": "ggcnn", "reason": "needs one channel"}
