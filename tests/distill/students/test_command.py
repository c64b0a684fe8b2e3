"""`edgedistill students`: a table of what students cost here, and candidates for a device."""

import json

import pytest

from deploy.errors import UserError
from deploy.measure.records import read_candidates, read_measurement
from distill import cli
from distill.pipeline import student_choice
from distill.students import measured

EDGE = [
    "--student.arch=edge/2",
    "--student.output-stride=8",
    "--student.head-channels=512",
    "--student.no-detail",
]
SMALL = ["--ms", "32x48", "--channels", "2", "--classes", "3"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(measured, "SECONDS", 0.01)


def test_students_are_timed_here(tmp_path, capsys):
    output = tmp_path / "measured.json"
    assert cli.main(["students", "edge/2", "edge/2:detail=True", *SMALL, "-o", str(output)]) == 0
    printed = capsys.readouterr()
    told = [line for line in printed.out.splitlines() if not line.startswith("INT8 is slower")]
    title, header, _, *lines, written = told[1:]
    assert title.startswith("32×48, 2 channels (float32), 3 classes")
    assert header.split() == ["network", "params", "M", "GMAC", "fp32", "ms", "by", "int8", "ms", "by"]
    assert [line.split()[0] for line in lines] == ["edge/2", "edge/2:detail=True"]
    assert all(float(line.split()[3]) > 0 and float(line.split()[5]) > 0 for line in lines)
    assert written == f"written to {output}"
    assert [row.name for row in read_measurement(output).rows] == ["edge/2", "edge/2:detail=True"]
    assert "exporting edge/2 (1 of 2)" in printed.err


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_one_precision_can_be_asked_for(precision, tmp_path):
    output = tmp_path / "measured.json"
    cli.main(["students", "edge/2", *SMALL, "--precision", precision, "-o", str(output)])
    [row] = read_measurement(output).rows
    assert {form.precision for form in row.forms} == {precision}


def test_candidates_are_exported_without_being_timed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measured, "measure_bundles", None)
    folder = tmp_path / "candidates"
    assert cli.main(["students", "edge/2", "edge/16", *SMALL, "--export", str(folder)]) == 0
    assert [one.name for one in read_candidates(folder).candidates] == ["edge/2", "edge-nano"]
    assert f"on the device: edgedistill measure {folder}" in capsys.readouterr().out


def test_all_students_that_can_be_built_are_taken_without_names(capsys):
    networks, target = measured.of_names([], (48, 48), 1, 4, int8=False)
    names = [one.name for one in networks]
    assert {"edge-nano", "edge/20", "pspnet/resnet50", "unet", "ggcnn"} <= set(names)
    assert len(names) == len(set(names))
    assert "unet-fusion: left out (joins two modalities" in capsys.readouterr().err
    assert target.spec.dtype == "float32"


def test_images_of_three_channels_are_bytes():
    _, target = measured.of_names(["edge/2"], (48, 32), 3, 4, int8=False)
    assert (target.spec.height, target.spec.width, target.spec.dtype) == (48, 32, "uint8")


@pytest.mark.parametrize(
    "named",
    [
        ["edge/2", *SMALL, "--precision=fp32", "--json"],
        ["--precision=fp32", "--run", "smoke", "--json", *EDGE, "--precision=fp32"],
    ],
)
def test_measurements_as_json(named, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(student_choice, "family_of", lambda arch: (arch,))
    output = tmp_path / "measured.json"
    assert cli.main(["students", "-o", str(output), *named]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads(output.read_text())
    assert [row.name for row in read_measurement(output).rows] == ["edge/2"]
    assert "exporting edge/2 (1 of 1)" in printed.err


def test_an_export_as_json(tmp_path, capsys):
    folder = tmp_path / "candidates"
    cli.main(["students", "edge/2", *SMALL, "--precision", "fp32", "--export", str(folder), "--json"])
    assert json.loads(capsys.readouterr().out) == json.loads((folder / "candidates.json").read_text())
    assert not list(folder.rglob("model.int8*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "x.json"], r"-o x\.json: nothing is timed without --ms or --run; give --ms HxW"),
        (
            ["--export", "f", "-o", "x.json"],
            r"-o x\.json: nothing is timed with --export; leave one of them out",
        ),
        (["--precision", "int8"], "--precision int8: nothing is timed without --ms or --run; leave it out"),
        (
            ["--export", "f", "--precision", "int8"],
            "--precision int8: nothing is timed with --export; leave it",
        ),
        (
            ["--export", "f", "--precision", "fp32", "--run", "smoke"],
            "--precision fp32: nothing is timed with",
        ),
        (["--ms", "32", "--size", "64"], "--size 64: --ms says the size, too; leave one of them out"),
        (
            ["--size", "64", "--run", "smoke"],
            "--run: the run says which candidates and which size; leave out",
        ),
        (
            ["--channels", "3", "--run", "smoke"],
            "--run: the run says which candidates and which size; leave out",
        ),
        (
            ["--classes", "11", "--run", "smoke"],
            "--run: the run says which candidates and which size; leave out",
        ),
    ],
)
def test_what_would_be_ignored_is_refused(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        cli.main(["students", *arguments])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["edge/wide", "--ms", "32"], "edge/wide: give the width as a number"),
        (["edgy", "--ms", "32"], "unknown network 'edgy'"),
        (["edge-nano:detail", "--ms", "32"], "write options as key=value"),
        (["--ms", "4x320"], "--ms 4x320: sides must be at least 8"),
        (["--ms", "32", "--classes", "256"], "--classes 256: labels are bytes; give at most 255"),
        (["--size", "0"], "--size 0: must be at least 8"),
        (["--channels", "0"], "--channels 0: must be at least 1"),
        (["edge", "--run", "smoke"], "--run: the run says which candidates and which size"),
        (["--run", "smok"], r"unknown preset 'smok' \(did you mean smoke\?\)"),
    ],
)
def test_mistakes_get_one_line(arguments, words):
    with pytest.raises(UserError, match=words):
        cli.main(["students", *arguments])


def test_a_size_that_is_none_is_a_mistake(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["students", "--ms", "big"])
    assert "'big' is no size; write it as 320x320, height first" in capsys.readouterr().err
