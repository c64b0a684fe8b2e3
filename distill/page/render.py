"""The page of one run or several: a single HTML file that needs no network."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy.analysis.by_class import NO_CLASS
from deploy.bundle.find import STUDENT
from deploy.errors import UserError
from deploy.evaluation.labeled_data import DATA
from deploy.evaluation.receipt import Receipt
from deploy.files.atomic import atomic_write
from deploy.measure import machine
from distill.page.charts import latency_chart, threshold_charts, training_chart
from distill.page.layers import layers_table
from distill.page.predictions import TEST, Predictor, predictors_of, threshold_curves
from distill.page.records import RunRecord, read_run
from distill.page.tables import Table, classes_table, int8_lines, networks_table, receipt_table, seeds_table
from distill.page.viewer import EACH, ShownImage, shown_images

HERE = Path(__file__).parent
FILE = "report.html"
WIDTH = 480
"""Width at which the viewer shows an image at first, in pixels, about."""


@dataclass(frozen=True)
class Section:
    """The test images of one run."""

    anchor: str
    title: str
    images: int
    folder: Path
    classes: Table | None
    confusions: Sequence[dict[str, Any]]
    shown: Sequence[ShownImage]
    thresholds: str
    infos: Sequence[Any]
    """Name and color of each class."""

    @property
    def layers(self) -> list[str]:
        """What either side of the viewer can show besides the image."""
        names = list(self.shown[0].layers)
        return [*names, *(f"errors of {name}" for name in names if name != "label")]

    @property
    def legend(self) -> str:
        """What the colors in the error maps of the rows mean."""
        if len(self.infos) == 2:
            name = self.infos[1].name
            return f"Errors: green is {name} found, red {name} where there is none, blue {name} missed."
        return "Errors: red is another class than the label." if self.infos else ""

    @property
    def last(self) -> str:
        """The layer of the last network."""
        return list(self.shown[0].layers)[-1]

    @property
    def viewer(self) -> str:
        """The data of the viewer, as JSON that is safe inside of a script element."""
        classes = [{"name": one.name, "color": one.color} for one in self.infos]
        kept = ("name", "kind", "score", "image", "layers")
        images = [{name: asdict(one)[name] for name in kept} for one in self.shown]
        return json.dumps({"classes": classes, "images": images}).replace("<", "\\u003c")

    @property
    def zoom(self) -> float:
        """Enlargement of small images at first."""
        return min(8.0, max(1.0, round(WIDTH / self.shown[0].width)))


def write_page(folders: Sequence[Path], path: Path, each: int = EACH) -> Path:
    """Write the page of one run, or of several to compare.

    Args:
        folders: of finished runs with the same metric.
        path: of the HTML file.
        each: number of the worst, of the median and of the best images of each run.

    Raises:
        UserError: a folder is no finished run, or the runs have different metrics or test images.
    """
    runs = [read_run(folder) for folder in folders]
    for run in runs[1:]:
        _check_comparable(run, runs[0])
    html = _template().render(**_content(runs, each))
    with atomic_write(path, "w") as file:
        file.write(html)
    return path


def _check_comparable(run: RunRecord, first: RunRecord) -> None:
    if run.first.metric != first.first.metric:
        raise UserError(
            f"{run.folder}: is measured by {run.first.metric}, {first.folder} by {first.first.metric}; "
            "give runs of one task"
        )
    (classes, images), (wanted, expected) = (
        ([one.name for one in each.manifest.classes], f"{each.first.images} images of {each.first.source}")
        for each in (run, first)
    )
    if images != expected or classes != wanted:
        what = f"{images} ({', '.join(classes)})" if classes != wanted else images
        raise UserError(
            f"{run.folder}: is scored on {what}, {first.folder} on {expected}; give runs of one data set"
        )


def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # start-up time

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page.html")


def _content(runs: Sequence[RunRecord], each: int) -> dict[str, Any]:
    """What the template is filled with."""
    from markupsafe import Markup

    several, first = len(runs) > 1, runs[0].first
    prefix = (lambda run: f"{run.name}: ") if several else (lambda _: "")
    return {
        "title": " and ".join(run.name for run in runs),
        "subtitle": f"{first.source}, {first.images} images · "
        + ", ".join(f"{row.name} {row.arch}" for row in runs[0].deployed),
        "passed": all(run.passed for run in runs),
        "networks": networks_table(runs),
        "seeds": seeds_table(runs),
        "receipts": [
            (f"{prefix(run)}{title}", receipt_table(one), [r for hop in one.hops for r in hop.reasons])
            for run in runs
            for title, one in (*run.report.receipts.items(), *_built(run))
        ],
        "engines": [(f"{prefix(run)}{one.text}", one.failed) for run in runs for one in run.engines],
        "gains": [f"{prefix(run)}{line}" for run in runs for line in run.gain],
        "int8": [f"{prefix(run)}{line}" for run in runs for line in int8_lines(run)],
        "decisions": [f"{prefix(run)}{line}" for run in runs for line in run.later_decisions],
        "training_chart": Markup(training_chart(runs)),
        "latency_chart": Markup(latency_chart(runs)),
        "sections": [_section(run, number, several, each) for number, run in enumerate(runs)],
        "layers": [
            (f"{prefix(run)}the student", layers)
            for run in runs
            if (layers := layers_table(run.folder / STUDENT)) is not None
        ],
        "texts": [(f"{prefix(run)}{name}", text) for run in runs for name, text in _texts(run)]
        + [("Environment of this page", _json(machine.describe()))],
        "css": Markup((HERE / "page.css").read_text(encoding="utf-8")),
        "js": Markup((HERE / "viewer.js").read_text(encoding="utf-8")),
    }


def _built(run: RunRecord) -> list[tuple[str, Receipt]]:
    return [
        (f"{name} of the student, as edgedistill build measured it:", one) for name, one in run.built.items()
    ]


def _section(run: RunRecord, number: int, several: bool, each: int) -> Section:
    from markupsafe import Markup

    predictors = predictors_of(run)
    curves = threshold_curves(run, predictors[-1])
    has_classes = bool(predictors[-1].classes)
    section = Section(
        anchor=f"images-{number}",
        title=f"Images of {run.name}" if several else "Images",
        images=len(predictors[-1].found.images),
        folder=Path(run.name) / DATA / TEST,
        classes=classes_table(predictors) if has_classes else None,
        confusions=[_confusion(one) for one in predictors if one.confusion is not None],
        shown=shown_images(run, predictors, each),
        thresholds=Markup(threshold_charts(curves, curves.classes[1].name)) if curves else "",
        infos=run.manifest.classes if has_classes else (),
    )
    return section


def _confusion(predictor: Predictor) -> dict[str, Any]:
    """Shares of each label's pixels, None for a class without labeled pixels."""
    counts = predictor.confusion
    assert counts is not None
    names = [one.name for one in predictor.classes]
    labeled = counts.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        shares = np.where(labeled > 0, counts / labeled, np.nan)
    rows = [[None if np.isnan(value) else float(value) for value in row] for row in shares]
    return {
        "name": predictor.name,
        "columns": [*names, NO_CLASS],
        "rows": list(zip(names, rows, strict=True)),
    }


def _texts(run: RunRecord) -> list[tuple[str, str]]:
    return [
        ("Configuration", _json(run.config)),
        ("Provenance of the student", _json(run.manifest.provenance)),
    ]


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
