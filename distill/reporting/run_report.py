"""What a run ends with: the table of results, pictures, and the next command."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from deploy.backends.engine import model_file
from deploy.evaluation.labeled_data import write_image
from deploy.evaluation.receipt import Receipt
from deploy.evaluation.receipt import table as receipt_table
from deploy.files.atomic import atomic_write, write_json
from deploy.files.images import write_png
from deploy.latency.latency import LatencyStats, measure_interleaved, sample_image
from deploy.loading import load
from deploy.table import format_table
from deploy.tasks.registry import task_named
from distill.config import RunConfig
from distill.data.splits import Splits
from distill.export.evaluate import as_arrays, spread

PICTURES = 4
GAP = 4
LATENCY_RUNS = 100


@dataclass(frozen=True)
class Row:
    """One network of the report; fractions in 0..1, `train_seconds` as spent by this process (0 if it was loaded)."""

    name: str
    arch: str
    parameters: int
    macs: int
    score: float
    """What the receipts call `metric`."""
    details: Mapping[str, float | None]
    train_seconds: float
    form: "Form"


class Form(NamedTuple):
    """What of a network runs on a device."""

    bundle: Path
    precision: str


Latencies = Mapping[Form, LatencyStats]


def latency_of(rows: Sequence[Row]) -> Latencies:
    """Latency on this machine of what the rows run, by ONNX Runtime, taking turns."""
    forms = list(dict.fromkeys(row.form for row in rows))
    models = []
    for bundle, precision in forms:
        model = load(bundle, "onnxruntime", precision=precision)
        models.append((model, sample_image(bundle, model.input)[0]))
    return dict(zip(forms, measure_interleaved(models, LATENCY_RUNS), strict=True))


def write_pictures(splits: Splits, out: Path) -> list[Path]:
    """Image, truth, teacher and student side by side for a few test samples, a segmentation with a legend.

    The images themselves go to `samples/`, to try the bundle on.
    """
    models = [load(out / f"{name}.bundle") for name in ("teacher", "student")]
    task, paths = task_named(splits.task), []
    for position in spread(range(len(splits.test)), PICTURES):
        sample_id, image, truth, _ = as_arrays(splits.test[position], splits.optical)
        name = Path(sample_id).name
        panels = task.panels(image, truth, [model(image) for model in models], splits.classes)
        write_png(out / "pictures" / f"{name}.png", side_by_side(panels))
        write_image(out / "samples" / name, image)
        paths.append(out / "pictures" / f"{name}.png")
    return paths


def side_by_side(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures H×W×3 uint8 in a row on white, with a gap between them."""
    height = max(len(picture) for picture in pictures)
    padded = [np.pad(p, ((0, height - len(p)), (0, GAP), (0, 0)), constant_values=255) for p in pictures]
    return np.concatenate(padded, axis=1)


def write_report(
    config: RunConfig,
    rows: Sequence[Row],
    receipts: Mapping[str, Receipt],
    latency: Latencies,
    pictures: Sequence[Path],
) -> Path:
    """Write `report.json` and `report.md` into the run's folder, print the latter, and return its path."""
    out = config.out
    write_json(
        out / "report.json",
        {
            "rows": [asdict(row) | {"latency": msgspec.to_builtins(latency[row.form])} for row in rows],
            "receipts": {name: msgspec.to_builtins(receipt) for name, receipt in receipts.items()},
        },
    )
    bundle, first = out / "student.bundle", next(iter(receipts.values()))
    text = "\n\n".join(
        [
            f"# {out.name}: {first.source}, {first.images} images",
            _fenced(results_table(rows, latency, first.metric)),
            *(f"{title}\n{_fenced(receipt_table(receipt))}" for title, receipt in receipts.items()),
            "Pictures (image, label, teacher, student):\n" + "\n".join(f"  {path}" for path in pictures),
            f"Next: python -m deploy predict {bundle} {out / 'samples'}\n"
            f"      python deploy/build_engine.py {bundle}\n"
            f"      python benchmarks/latency.py {bundle} {out / 'teacher.bundle'}",
        ]
    )
    with atomic_write(out / "report.md", "w") as file:
        file.write(text + "\n")
    print(text.replace("```\n", "").replace("\n```", ""))
    return out / "report.md"


def results_table(rows: Sequence[Row], latency: Latencies, metric: str) -> str:
    """Teacher, baseline and student as an aligned table; baseline and student are one network and share its latency."""
    detail = next(iter(rows[0].details))
    header = ("network", "params M", "GMAC", f"{metric} %", f"{detail} %", "ms p50", "MB", "training s")
    lines = []
    for row in rows:
        size = model_file(row.form.bundle, "onnxruntime", row.form.precision).stat().st_size
        lines.append(
            (
                f"{row.name} {row.arch}",
                f"{row.parameters / 1e6:.2f}",
                f"{row.macs / 1e9:.3f}",
                f"{100 * row.score:.2f}",
                "–" if (value := row.details.get(detail)) is None else f"{100 * value:.2f}",
                f"{latency[row.form].total.p50:.2f}",
                f"{size / 1e6:.1f}",
                f"{row.train_seconds:.0f}",
            )
        )
    return format_table(header, lines)


def _fenced(text: str) -> str:
    return f"```\n{text}\n```"
