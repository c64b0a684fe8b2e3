"""The page of a run is one file that holds everything, and says what the run's files say."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest

from deploy.bundle.bundle_files import set_decision
from deploy.bundle.engine_files import record_verdict, write_engine
from deploy.errors import UserError
from deploy.evaluation.per_image import Evaluation, ImageScore
from deploy.files.atomic import write_json
from deploy.tasks.segmentation.task import SegmentationScorer
from distill import cli
from distill.page.charts import svg
from distill.page.predictions import chosen_images, samples_of
from distill.page.records import read_run
from distill.page.tables import seeds_table
from distill.reporting.figures import panels
from tests.deploy.bundle.test_engine_files import SIDECAR
from tests.deploy.two_classes import IMAGES
from tests.distill.page.finished import copied, finished_run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return finished_run(tmp_path_factory.mktemp("page") / "run")


@pytest.fixture(scope="module")
def page(run) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


class Elements(HTMLParser):
    """Start tags with their attributes, and tags that are never closed."""

    VOID = ("meta", "link", "input", "img", "br", "hr")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open[-1] == tag, f"{tag} closes {self.open[-1]}"
        self.open.pop()


def test_it_needs_no_other_file_and_is_well_formed(page):
    elements = Elements(page)
    assert elements.open == []
    for tag, attributes in elements.found:
        for name in ("src", "href", "xlink:href", "srcset"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:")), (tag, name, value[:60])
        if tag == "img":
            assert attributes["alt"]
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_it_says_what_the_report_says(run, page):
    report = json.loads((run / "report.json").read_text())
    for row in report["rows"]:
        assert f"{row['name']} · {row['arch']}" in page
        assert f"{100 * row['score']:.2f}" in page
    for name in ("teacher", "baseline", "student"):
        assert f">{name}<" in page.replace(f"{name} int8", "")
    assert "met its budget" in page
    assert len(samples_of(read_run(run))) == IMAGES  # so that the time that is left can be told


def test_pictures_are_the_worst_median_and_best(page):
    viewer = json.loads(re.search(r'application/json">(.*?)</script>', page, re.DOTALL).group(1))
    kinds = [image["kind"] for image in viewer["images"]]
    assert kinds == sorted(kinds, key=["worst", "median", "best"].index)
    assert set(viewer["images"][0]["layers"]) == {"label", "teacher", "student", "student int8"}
    assert len({image["name"] for image in viewer["images"]}) == len(kinds)


@pytest.mark.parametrize("count", [1, 2, 4, 9, 20])
def test_each_image_is_chosen_once(count):
    scores = np.random.default_rng(0).permutation(count) / count
    images = tuple(ImageScore(str(i), float(score), {}) for i, score in enumerate(scores))
    chosen = chosen_images(Evaluation(images, SegmentationScorer(["a"])), 3)
    positions = [position for _, position in chosen]
    assert len(set(positions)) == len(positions) == min(count, 9)
    worst = [scores[position] for kind, position in chosen if kind == "worst"]
    best = [scores[position] for kind, position in chosen if kind == "best"]
    assert min(scores) in worst
    assert not best or max(scores) in best


def test_runs_of_two_seeds_are_compared(run, tmp_path, capsys):
    other = copied(run, tmp_path / "seed-1")
    settings = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(settings | {"seed": 1}))
    out = tmp_path / "both.html"
    assert cli.main(["report", str(run), str(other), "--out", str(out)]) == 0
    page = out.read_text()
    assert "Over the seeds" in page
    assert "seed-1: student" in page
    assert page.count('class="viewer"') == 2
    assert "both.html: open it in a browser" in capsys.readouterr().out
    (other / "config.json").write_text(json.dumps(settings | {"data.size": [64, 64]}))
    cli.main(["report", str(run), str(other), "--out", str(out), "--json"])
    assert json.loads(capsys.readouterr().out) == {"file": str(out), "bytes": out.stat().st_size}
    assert "Over the seeds" not in out.read_text()


def test_runs_of_one_seed_or_of_other_steps_are_no_repetitions(run, tmp_path):
    other, out = copied(run, tmp_path / "again"), tmp_path / "both.html"
    cli.main(["report", str(run), str(other), "--out", str(out)])
    assert "Over the seeds" not in out.read_text()
    settings = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(settings | {"seed": 1}))
    (other / "schedule.json").write_text(json.dumps({"student_train.steps": 1}))
    cli.main(["report", str(run), str(other), "--out", str(out)])
    assert "Over the seeds" not in out.read_text()


def test_deviations_of_errors_are_positive(run):
    one, two = read_run(run), read_run(run)
    rows = [msgspec.structs.replace(row, score=-0.1) for row in one.report.rows]
    receipts = {
        name: msgspec.structs.replace(each, metric="RMSE", unit="mm", factor=-1000.0)
        for name, each in one.report.receipts.items()
    }
    one = replace(one, report=msgspec.structs.replace(one.report, rows=rows, receipts=receipts))
    others = [msgspec.structs.replace(row, score=-0.12) for row in rows]
    two = replace(
        one, report=msgspec.structs.replace(one.report, rows=others), config={**two.config, "seed": 9}
    )
    table = seeds_table([one, two])
    assert table is not None
    assert [row[2:] for row in table.rows] == [["110.00", "14.14"]] * len(rows)


@pytest.mark.parametrize(
    ("old", "new"), [('"images": ', '"images": 9'), ('"dataset": "', '"dataset": "other ')]
)
def test_runs_on_other_images_are_not_compared(run, tmp_path, old, new):
    other = copied(run, tmp_path / "other")
    (other / "report.json").write_text((other / "report.json").read_text().replace(old, new))
    with pytest.raises(UserError, match=r"other: is scored on .* images of .*; give runs of one data set"):
        cli.main(["report", str(run), str(other), "--out", str(tmp_path / "both.html")])


def reported(run: Path, out: Path) -> str:
    assert cli.main(["report", str(run), "--out", str(out)]) == 0
    return out.read_text(encoding="utf-8")


MET, OVER = "Every step from torch to the device met its budget.", "A step is over its budget: see Gates."


@pytest.mark.parametrize("passed", [True, False])
def test_what_build_measured_is_among_the_gates(run, tmp_path, passed):
    other = copied(run, tmp_path / "built")
    first = read_run(run).first
    reasons = () if passed else ("hop int8 cpu → openvino int8: too far",)
    hop = msgspec.structs.replace(first.hops[-1], name="openvino int8", passed=passed, reasons=reasons)
    receipt = msgspec.structs.replace(first, hops=(*first.hops, hop), passed=passed)
    write_json(other / "student.bundle" / "engines" / "openvino-int8.receipt.json", receipt)
    page = reported(other, tmp_path / "page.html")
    assert ">openvino int8<" in page
    assert (MET in page, OVER in page) == (passed, not passed)
    assert all(reason in page for reason in reasons)


def test_an_engine_that_failed_its_gate_fails_the_page(run, tmp_path):
    other = copied(run, tmp_path / "built")
    engine = write_engine(other / "student.bundle", "tensorrt-int8", b"x", SIDECAR)
    assert MET in reported(other, tmp_path / "page.html")
    record_verdict(engine, False)
    page = reported(other, tmp_path / "page.html")
    assert OVER in page
    assert re.search(r'<p class="failed">engine +tensorrt-int8.engine: .*FAILED its gate</p>', page)


def test_an_engine_whose_description_is_damaged_fails_the_page(run, tmp_path):
    other = copied(run, tmp_path / "built")
    engine = write_engine(other / "student.bundle", "tensorrt-int8", b"x", SIDECAR)
    engine.with_suffix(".json").write_text("{")
    page = reported(other, tmp_path / "page.html")
    assert OVER in page
    assert re.search(r'<p class="failed">engine +tensorrt-int8.engine', page)


@pytest.mark.parametrize(("ms", "said"), [(12.5, True), (9.0, False)])
def test_the_page_says_where_int8_is_slower(run, tmp_path, ms, said):
    other = copied(run, tmp_path / "timed")
    report = json.loads((other / "report.json").read_text())
    for row in report["rows"]:
        row["latency"]["total"]["p50"] = ms if row["form"][1] == "int8" else 10.0
    (other / "report.json").write_text(json.dumps(report))
    page = reported(other, tmp_path / "page.html")
    assert ("INT8 is slower than fp32 here: student.bundle 0.80× (12.50 ms against 10.00)" in page) == said


def test_a_damaged_receipt_of_a_build_is_named(run, tmp_path):
    other = copied(run, tmp_path / "built")
    path = other / "student.bundle" / "engines" / "openvino-int8.receipt.json"
    path.parent.mkdir()
    path.write_text("{}")
    with pytest.raises(UserError, match=r"openvino-int8\.receipt\.json: .*delete it, or build again"):
        reported(other, tmp_path / "page.html")


def test_a_decision_that_changed_since_the_run_is_said(run, tmp_path):
    other = copied(run, tmp_path / "decided")
    words = "student.bundle: the decision changed since the run, to a threshold of 0.9."
    assert words not in reported(other, tmp_path / "page.html")
    set_decision(other / "student.bundle", 0.9, None)
    assert words in reported(other, tmp_path / "page.html")


def test_a_description_of_a_chart_is_text():
    figure, (axes,) = panels(1)
    axes.plot([0, 1])
    assert 'aria-label="Of &quot;x&quot; &amp; &lt;b&gt;"' in svg(figure, 'Of "x" & <b>')


def test_names_cannot_break_out_of_the_page(run, tmp_path):
    other = copied(run, tmp_path / "<b>&run")
    report = (other / "report.json").read_text()
    (other / "report.json").write_text(report.replace('"baseline"', '"</script><script>alert(1)</script>"'))
    cli.main(["report", str(other), "--out", str(tmp_path / "page.html")])
    page = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;b&gt;&amp;run" in page


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda run: (run / "report.json").unlink(),
            "holds no report.json; give the folder of a finished run",
        ),
        (lambda run: (run / "report.json").write_text("{"), "report.json: cannot be read"),
        (lambda run: (run / "student" / "metrics.jsonl").write_text("{"), "metrics.jsonl: cannot be read"),
        (lambda run: (run / "data").rename(run / "moved"), "data/test/images: no such folder"),
    ],
)
def test_what_is_no_finished_run_is_refused(run, tmp_path, damage, message):
    other = copied(run, tmp_path / "run")
    (other / "report.html").unlink()
    damage(other)
    with pytest.raises(UserError, match=message):
        cli.main(["report", str(other)])
    assert not (other / "report.html").exists()


def test_other_mistakes(run, tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        cli.main(["report", str(tmp_path / "nowhere")])
    with pytest.raises(UserError, match="--images 0: must be 1 or more"):
        cli.main(["report", str(run), "--images", "0"])
