"""The report of a run: its tables in Markdown and on the terminal, and its figures as JSON."""

import json

import numpy as np
import pytest
from msgspec.structs import replace

from deploy.evaluation.metric import MIOU
from deploy.evaluation.receipt import Hop, run_hops
from deploy.loading import load
from deploy.tasks.segmentation.task import SegmentationScorer
from distill.reporting import run_report
from distill.reporting.run_report import Form, Row, latency_of, results_table, write_report
from distill.run import parse
from tests.deploy.precisions import make_precisions
from tests.deploy.tiny import make_bundle, make_image


@pytest.fixture
def report(tmp_path, monkeypatch, capsys) -> tuple[str, dict, str]:
    """`report.md`, `report.json` and what is printed, of a teacher and a student that are one network."""
    monkeypatch.setattr(run_report, "LATENCY_RUNS", 2)
    out = tmp_path / "first"
    config = parse(["smoke", "--out", str(out)])
    bundle = out / "student.bundle"
    manifest = make_bundle(bundle)
    image = make_image()
    model = load(bundle, "onnxruntime")
    sample = ("scene", image, model(image).labels, np.ones(image.shape[:2], bool))
    names = [info.name for info in manifest.classes]
    receipt = run_hops(
        [Hop("onnxruntime fp32", model, 0)],
        [sample],
        lambda: SegmentationScorer(names),
        dataset="made up",
        split="test",
    )
    form = Form(bundle, "fp32")
    rows = [
        Row("teacher", "pspnet/resnet50", 24_000_000, 5_500_000_000, 0.75, {"red": 0.5}, 90.0, form),
        Row("student", "unet", 1_000_000, 250_000_000, 0.5, {"red": None}, 0.0, form),
    ]
    path = write_report(config, rows, {"INT8 against FP32": receipt}, latency_of(rows), [out / "a.png"])
    return path.read_text(), json.loads((out / "report.json").read_text()), capsys.readouterr().out


def test_the_text_holds_tables_pictures_and_the_next_commands(report):
    text, _, printed = report
    assert text.startswith("# first: made up test, 1 images\n")
    for words in ("network", "params M", "GMAC", "mIoU %", "red %", "INT8 against FP32", "a.png", "Next: "):
        assert words in text
    assert "edgedistill predict " in text
    assert "edgedistill build " in text
    teacher, student = (line.split() for line in text.splitlines() if "pspnet/" in line or " unet " in line)
    assert teacher[:6] == ["teacher", "pspnet/resnet50", "24.00", "5.500", "75.00", "50.00"]
    assert student[:6] == ["student", "unet", "1.00", "0.250", "50.00", "–"]
    assert (teacher[-1], student[-1]) == ("90", "0")
    assert printed.splitlines() == [line for line in text.splitlines() if line != "```"]


def test_the_json_holds_every_figure(report):
    _, content, _ = report
    teacher, student = content["rows"]
    assert (teacher["name"], teacher["macs"], teacher["score"]) == ("teacher", 5_500_000_000, 0.75)
    assert student["details"] == {"red": None}
    assert student["latency"]["runs"] == 2
    assert teacher["latency"] == student["latency"]  # one network, measured once
    assert content["receipts"]["INT8 against FP32"]["hops"][0]["score"] == 1.0


def test_the_results_say_where_int8_is_slower(tmp_path):
    bundle = make_precisions(tmp_path / "student.bundle", "int8")
    forms = [Form(bundle, precision) for precision in ("fp32", "int8")]
    rows = [Row(form.precision, "unet", 1, 1, 0.5, {"red": 0.5}, 0.0, form) for form in forms]
    measured = latency_of(rows)
    for ms, slower in (((10.0, 12.5), True), ((10.0, 9.0), False)):
        pairs = zip(forms, ms, strict=True)
        known = {
            form: replace(measured[form], total=replace(measured[form].total, p50=one)) for form, one in pairs
        }
        last = results_table(rows, known, MIOU).splitlines()[-1]
        assert last.startswith("INT8 is slower than fp32 here: student.bundle 0.80×") == slower
