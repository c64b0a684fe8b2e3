"""`edgedistill measure` on tiny bundles: without torch, with a table and a file that a run can read."""

import subprocess
import sys

import pytest

from deploy.backends.auto import installed
from deploy.errors import UserError
from deploy.files.atomic import write_json
from deploy.measure import timing
from deploy.measure.command import main, subjects_of, table
from deploy.measure.records import CANDIDATES, Candidate, Candidates, Row, read_measurement
from deploy.measure.timing import Subject, forms_of, measure_bundles
from tests.conftest import ROOT
from tests.deploy.measure.measurements import EDGE, SHAPE, measurement, timed
from tests.deploy.tiny import make_bundle

FAST = ["--seconds", "0.01", "--threads", "1"]


@pytest.fixture
def candidates(tmp_path):
    """A folder of two candidates."""
    folder = tmp_path / "candidates"
    for name in ("a.bundle", "b.bundle"):
        make_bundle(folder / name)
    listed = (
        Candidate("edge/4", {}, 100, 2_000_000, "a.bundle"),
        Candidate("edge/4", {"detail": True}, 200, 3_000_000, "b.bundle"),
    )
    write_json(folder / CANDIDATES, Candidates(listed))
    return folder


def test_candidates_and_bundles_are_measured(candidates, tmp_path, capsys):
    make_bundle(tmp_path / "own.bundle", "sar")
    output = tmp_path / "out" / "measured.json"
    assert main([str(candidates), str(tmp_path / "own.bundle"), "-o", str(output), *FAST]) == 0
    found = read_measurement(output)
    assert found.threads == 1
    assert found.machine["packages"]["onnxruntime"]
    assert [row.name for row in found.rows] == ["edge/4", "edge/4:detail=True", "tiny-sar"]
    assert [row.candidate and row.candidate.macs for row in found.rows] == [2_000_000, 3_000_000, None]
    assert [(row.shape.channels, row.shape.dtype) for row in found.rows] == [
        (3, "uint8"),
        (3, "uint8"),
        (2, "float32"),
    ]
    for row in found.rows:
        assert [(form.backend, form.precision) for form in row.forms] == [(b, "fp32") for b in installed()]
        assert all(0 < form.p50 <= form.p90 <= form.p99 and form.runs >= 5 for form in row.forms)
    printed = capsys.readouterr()
    assert "edge/4:detail=True" in printed.out
    assert f"written to {output}" in printed.out
    assert "timing" in printed.err


def test_it_runs_where_nothing_of_the_training_can_be_imported(candidates, tmp_path):
    code = f"""
import sys
for name in ("torch", "torchvision", "timm", "onnx", "cv2", "rich", "tyro", "distill", "student", "teacher"):
    sys.modules[name] = None
from deploy.cli import main
sys.exit(main(["measure", {str(candidates)!r}, "-o", {str(tmp_path / "m.json")!r}, "--seconds", "0.01"]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(read_measurement(tmp_path / "m.json").rows) == 2


def test_bundles_of_one_name_are_told_apart_by_their_paths(tmp_path, capsys):
    for run in ("a", "b"):
        make_bundle(tmp_path / run / "student.bundle")
    make_bundle(tmp_path / "sar.bundle", "sar")
    bundles = [tmp_path / "a" / "student.bundle", tmp_path / "b" / "student.bundle", tmp_path / "sar.bundle"]
    assert main([*map(str, bundles), "-o", str(tmp_path / "m.json"), *FAST]) == 0
    names = [row.name for row in read_measurement(tmp_path / "m.json").rows]
    assert names == [str(bundles[0]), str(bundles[1]), "tiny-sar"]
    first, second = (f"{bundle} 0.50×" for bundle in bundles[:2])
    forms = (timed(2.0), timed(1.0, precision="fp32"))
    slow = measurement(*(Row(name, SHAPE, forms) for name in names))
    assert f"slower than fp32 here: {first} (2.00 ms against 1.00); {second}" in table(slow)


def test_groups_of_forms_are_measured_one_after_another(candidates, monkeypatch):
    monkeypatch.setattr(timing, "TOGETHER", 1)
    lines: list[str] = []
    found = measure_bundles(subjects_of(candidates), 1, 0.01, lines.append)
    assert len(found.rows) == 2
    assert len([line for line in lines if line.startswith("timing")]) == 2


def test_a_backend_that_refuses_is_left_out_with_a_warning(candidates, monkeypatch):
    if len(installed()) < 2:
        pytest.skip("only one backend is installed")
    opened = timing.open_engine

    def picky(folder, backend, threads, precision):
        if backend == "openvino":
            raise UserError("openvino: cannot load it")
        return opened(folder, backend, threads, precision)

    monkeypatch.setattr(timing, "open_engine", picky)
    with pytest.warns(RuntimeWarning, match="openvino: cannot load it; not measured"):
        found = measure_bundles(subjects_of(candidates)[:1], 1, 0.01, print)
    assert [form.backend for form in found.rows[0].forms] == ["onnxruntime"]


def test_a_damaged_bundle_is_refused(candidates):
    path = candidates / "a.bundle" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"a\.bundle/model\.onnx: has \d+ bytes instead of"):
        measure_bundles(subjects_of(candidates), 1, 0.01, print)


def test_only_the_precisions_asked_for_are_measured(candidates):
    with pytest.raises(UserError, match=r"edge/4: has no model in int8; it has fp32"):
        measure_bundles(subjects_of(candidates), 1, 0.01, print, ("int8",))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["."], r"has neither manifest\.json nor candidates\.json; give a bundle, or a folder"),
        (["nowhere"], "nowhere: no such folder; give a bundle"),
        ([".", "--threads", "0"], "--threads 0: give at least 1"),
        ([".", "--seconds", "0"], "--seconds 0: must be above 0"),
        ([".", "--seconds", "nan"], "--seconds nan: must be above 0"),
    ],
)
def test_mistakes_get_one_line(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        main(arguments)


def test_an_empty_index_gets_one_line(tmp_path):
    write_json(tmp_path / CANDIDATES, Candidates(()))
    with pytest.raises(UserError, match=r"candidates\.json: lists no candidates; export them again"):
        main([str(tmp_path)])


def test_the_table_names_the_fastest_backend_of_each_precision():
    lines = table(EDGE).splitlines()
    assert lines[0] == (
        "320×320, 3 channels (uint8), 11 classes: median of one inference, engine alone, all in turns"
    )
    assert lines[-1].split() == ["edge-small", "0.00", "0.580", "6.50", "onnxruntime", "2.60", "openvino"]


def test_a_bundle_is_its_own_subject(tmp_path):
    make_bundle(tmp_path / "own.bundle")
    assert subjects_of(tmp_path / "own.bundle") == [Subject(tmp_path / "own.bundle", "tiny-rgb")]
    assert [form.precision for form in forms_of(tmp_path / "own.bundle")] == ["fp32"] * len(installed())
