"""`--quiet` and `--verbose` mean the same for every command, wherever they stand."""

import pytest

from deploy import cli, verbosity
from deploy.errors import UserError, exit_with_one_line
from deploy.files.images import write_png
from deploy.heartbeat import working
from deploy.verbosity import is_quiet, is_verbose, note, take_options
from tests.deploy.tiny import make_bundle, make_image


@pytest.fixture(autouse=True)
def usual(monkeypatch):
    monkeypatch.setattr(verbosity, "_level", [verbosity.USUAL])


@pytest.mark.parametrize(
    ("given", "left", "quiet", "verbose"),
    [
        ("predict --quiet b x.png", "predict b x.png", True, False),
        ("--verbose predict b x.png", "predict b x.png", False, True),
        ("predict b x.png --verbose --quiet", "predict b x.png", True, False),
        ("predict b -- --quiet", "predict b -- --quiet", False, False),
        ("predict b x.png", "predict b x.png", False, False),
    ],
)
def test_options_anywhere(given, left, quiet, verbose):
    assert take_options(given.split()) == left.split()
    assert (is_quiet(), is_verbose()) == (quiet, verbose)


def test_quiet_leaves_results_and_drops_progress(tmp_path, capsys):
    make_bundle(tmp_path / "bundle")
    write_png(tmp_path / "a.png", make_image())
    fields = ["predict", str(tmp_path / "bundle"), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]
    assert cli.main([*fields, "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("1 of 1 images predicted")
    assert printed.err == ""
    note("going on")
    with working("exporting", every=0.01):
        pass
    assert capsys.readouterr().err == ""
    assert cli.main(fields) == 0, "the next command is as usual again"
    assert capsys.readouterr().out.startswith("a.png")


def test_verbose_tells_stages_and_tracebacks(capsys):
    def fails():
        take_options(["--verbose"])
        with working("exporting"):
            pass
        raise UserError("x: is wrong; give another")

    with pytest.raises(SystemExit) as ended:
        exit_with_one_line(fails)
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "exporting: 0.0 s"
    assert lines[1].startswith("Traceback")
    assert lines[-1] == "error: x: is wrong; give another"
