"""The report at the end of a run: the table of results, pictures, and the next commands."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from deploy.backends.engine import model_file
from deploy.evaluation.labeled_data import write_image
from deploy.evaluation.metric import Metric
from deploy.evaluation.receipt import Receipt
from deploy.evaluation.receipt import table as receipt_table
from deploy.files.atomic import atomic_write, write_json
from deploy.files.images import write_png
from deploy.latency.latency import LatencyStats, measure_interleaved, sample_image
from deploy.loading import load
from deploy.table import format_table, int8_notes
from distill.config import RunConfig
from distill.export.evaluate import spread
from distill.reporting.gain import distillation_gain
from distill.reporting.panels import side_by_side
from distill.selection.choice import CHOICE, read_choice
from distill.selection.choice import table as candidates_table
from distill.selection.choice import title as candidates_title
from distill.tasks.task import PreparedData

PICTURES = 4
LATENCY_RUNS = 100
LATENCY_SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "latency.py"


@dataclass(frozen=True)
class Row:
    """One network in the report."""

    name: str
    arch: str
    parameters: int | None
    """None of a teacher that is a bundle or an ONNX file."""
    macs: int | None
    score: float
    """By the metric of the receipts, in its unit."""
    details: Mapping[str, float | None]
    """Further figures by name, as in the receipts; fractions in 0..1 are shown in percent."""
    train_seconds: float
    """Training time in this process; 0 if the network was loaded."""
    form: "Form | None"
    """None of a teacher that stays where it is."""


class Form(NamedTuple):
    """The form in which a network runs on a device: a model of a bundle."""

    bundle: Path
    precision: str


Latencies = Mapping[Form, LatencyStats]


def latency_of(rows: Sequence[Row]) -> Latencies:
    """Latency of each form on this machine with ONNX Runtime; forms take turns, so that interference affects all."""
    forms = list(dict.fromkeys(row.form for row in rows if row.form is not None))
    models = []
    for bundle, precision in forms:
        model = load(bundle, "onnxruntime", precision=precision)
        models.append((model, sample_image(bundle, model.input)[0]))
    return dict(zip(forms, measure_interleaved(models, LATENCY_RUNS), strict=True))


def bundles_of(rows: Sequence[Row]) -> list[Path]:
    """The bundles of the networks in a report, the teacher's first."""
    return list(dict.fromkeys(row.form.bundle for row in rows if row.form is not None))


def write_pictures(data: PreparedData, out: Path, bundles: Sequence[Path]) -> list[Path]:
    """Draw image, label and what each bundle predicts side by side for a few test samples.

    The images themselves are written to `samples/`, to try the bundle on.

    Returns:
        The paths of the pictures.
    """
    # "auto" would measure for seconds what is fastest here, the teacher's bundle included.
    models = [load(bundle, "onnxruntime") for bundle in bundles]
    splits, task, paths = data.splits, data.task, []
    for position in spread(range(len(splits.test)), PICTURES):
        sample_id, image, truth, _ = task.arrays(splits.test[position], splits.optical)
        name = Path(sample_id).name
        panels = task.device.panels(image, truth, [model(image) for model in models], splits.classes)
        write_png(out / "pictures" / f"{name}.png", side_by_side(panels))
        write_image(out / "samples" / name, image)
        paths.append(out / "pictures" / f"{name}.png")
    return paths


def write_report(
    config: RunConfig,
    rows: Sequence[Row],
    receipts: Mapping[str, Receipt],
    latency: Latencies,
    pictures: Sequence[Path],
) -> Path:
    """Write `report.json` and `report.md` into the run's folder, and print the latter.

    Args:
        config: the run.
        rows: the networks, in the order of the table.
        receipts: receipts by title, the first of the student; its data heads the report.
        latency: latency of each form in the rows.
        pictures: what `write_pictures` returned.

    Returns:
        The path of `report.md`.
    """
    out = config.out
    choice = read_choice(out / CHOICE) if config.student.max_ms else None
    write_json(
        out / "report.json",
        {
            "rows": [asdict(row) | {"latency": _latency(row, latency)} for row in rows],
            "receipts": {name: msgspec.to_builtins(receipt) for name, receipt in receipts.items()},
        }
        | ({"student_choice": msgspec.to_builtins(choice)} if choice else {}),
    )
    bundles, first = bundles_of(rows), next(iter(receipts.values()))
    panels = ", ".join(["image", "label", *(bundle.stem for bundle in bundles)])
    text = "\n\n".join(
        [
            f"# {out.name}: {first.source}, {first.images} images",
            _fenced(results_table(rows, latency, first.shown)),
            *(f"{title}\n{_fenced(receipt_table(receipt))}" for title, receipt in receipts.items()),
            *([f"{candidates_title(choice)}\n{_fenced(candidates_table(choice))}"] if choice else []),
            f"Pictures ({panels}):\n" + "\n".join(f"  {path}" for path in pictures),
            "Next: " + "\n      ".join(next_commands(bundles, out)),
        ]
    )
    with atomic_write(out / "report.md", "w") as file:
        file.write(text + "\n")
    print(text.replace("```\n", "").replace("\n```", ""))
    return out / "report.md"


def next_commands(bundles: Sequence[Path], out: Path) -> list[str]:
    """What to type next with the last of these bundles, the student's; the benchmark is in a clone only."""
    *others, bundle = bundles
    commands = [f"edgedistill predict {bundle} {out / 'samples'}", f"edgedistill build {bundle}"]
    if LATENCY_SCRIPT.exists():
        commands.append(" ".join(map(str, ["python benchmarks/latency.py", bundle, *others])))
    return commands


def results_table(rows: Sequence[Row], latency: Latencies, metric: Metric) -> str:
    """The networks as an aligned table, and what the teacher gave. Baseline and student share one latency."""
    detail = next(iter(rows[0].details))
    header = ("network", "params M", "GMAC", metric.header, f"{detail} %", "ms p50", "MB", "training s")
    lines = []
    for row in rows:
        milliseconds, megabytes = _cost(row, latency)
        lines.append(
            (
                f"{row.name} {row.arch}",
                "–" if row.parameters is None else f"{row.parameters / 1e6:.2f}",
                "–" if row.macs is None else f"{row.macs / 1e9:.3f}",
                metric.text(row.score),
                "–" if (value := row.details.get(detail)) is None else f"{100 * value:.2f}",
                milliseconds,
                megabytes,
                f"{row.train_seconds:.0f}",
            )
        )
    medians = {(form.bundle.name, form.precision): stats.total.p50 for form, stats in latency.items()}
    gain = distillation_gain({row.name: row.score for row in rows}, metric)
    return "\n".join([format_table(header, lines), *gain, *int8_notes(medians)])


def _cost(row: Row, latency: Latencies) -> tuple[str, str]:
    """Milliseconds and megabytes of a network."""
    if row.form is None:
        return "–", "–"
    size = model_file(row.form.bundle, "onnxruntime", row.form.precision).stat().st_size
    return f"{latency[row.form].total.p50:.2f}", f"{size / 1e6:.1f}"


def _latency(row: Row, latency: Latencies) -> object:
    return None if row.form is None else msgspec.to_builtins(latency[row.form])


def _fenced(text: str) -> str:
    return f"```\n{text}\n```"
