"""A run's folder as a finished run leaves it, without any training."""

import json
import shutil
from functools import partial
from pathlib import Path

from deploy.bundle.bundle_files import extend_bundle, read_manifest, set_decision
from deploy.bundle.manifest import INT8_CPU
from deploy.evaluation.labeled_data import read_labeled
from deploy.evaluation.receipt import Hop, run_hops
from deploy.files.atomic import write_json
from deploy.loading import load
from deploy.tasks.segmentation.task import SegmentationScorer
from distill.page.render import FILE, write_page
from distill.reporting.run_report import Form, Row, latency_of, write_report
from distill.run import parse
from distill.run_folder import SETTINGS, settings
from tests.deploy.tiny import WEIGHTS, make_model
from tests.deploy.two_classes import make_two_class_bundle

CLASSES = ("water", "land")


def finished_run(folder: Path) -> Path:
    """Write the folder of a run of two classes: bundles, images, report, logs and page."""
    config = parse(["smoke", "--out", str(folder)])
    write_json(config.out / SETTINGS, settings(config))
    student, teacher = folder / "student.bundle", folder / "teacher.bundle"
    make_two_class_bundle(student)
    shutil.copytree(student, teacher)
    set_decision(teacher, 0.7, None)
    quantized = make_model(read_manifest(student).input, WEIGHTS["sar"])
    extend_bundle(student, {INT8_CPU: quantized}, {INT8_CPU: "int8"})

    hops = [Hop(name, load(student, "onnxruntime", precision=name), 1000, None) for name in ("fp32", "int8")]
    samples = read_labeled(folder / "data" / "test", 2)
    receipt = run_hops(hops, samples, partial(SegmentationScorer, CLASSES), dataset="made up", split="test")
    forms = {
        "teacher": Form(teacher, "fp32"),
        "baseline": Form(student, "fp32"),
        "student": Form(student, "fp32"),
        "student int8": Form(student, "int8"),
    }
    details = receipt.hops[0].details
    rows = [
        Row(name, "tiny", 10**6, 10**9, 0.5 + 0.1 * index, details, 60.0, form)
        for index, (name, form) in enumerate(forms.items())
    ]
    write_report(config, rows, {"The student in INT8:": receipt}, latency_of(rows), [])
    for stage in ("teacher", "baseline", "student"):
        _write_log(folder / stage / "metrics.jsonl")
    write_page([folder], folder / FILE)
    return folder


def _write_log(path: Path) -> None:
    losses = [{"step": step, "loss": 1 / step, "lr": 0.1} for step in (10, 20, 30)]
    scores = [{"step": step, "val_miou": step / 100} for step in (15, 30)]
    path.parent.mkdir()
    path.write_text("".join(f"{json.dumps(line)}\n" for line in [*losses, *scores]), encoding="utf-8")


def copied(run: Path, to: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(run, to))
