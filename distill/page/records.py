"""What a finished run has written about itself, read back for its page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.engine_files import engines_folder
from deploy.bundle.find import STUDENT
from deploy.bundle.manifest import Manifest
from deploy.cli import EngineLine, engine_lines
from deploy.errors import UserError
from deploy.evaluation.metric import Metric
from deploy.evaluation.receipt import Receipt
from deploy.files.json_files import read_record
from deploy.latency.latency import LatencyStats
from distill.reporting.gain import BASELINE, distillation_gain
from distill.run_folder import SCHEDULE

AGAIN = "run it again with --resume"
BUILT = ".receipt.json"


class RowRecord(msgspec.Struct, frozen=True):
    """One network in `report.json` (see `distill.reporting.run_report.Row`)."""

    name: str
    arch: str
    parameters: int | None
    macs: int | None
    score: float
    details: dict[str, float | None]
    train_seconds: float
    form: tuple[str, str] | None
    """Path of the bundle when the run was made, and precision; None of a teacher that lies elsewhere."""
    latency: LatencyStats | None

    def bundle(self, run: Path) -> Path:
        """The bundle, wherever the run's folder lies now; of rows that have a form."""
        assert self.form is not None
        return run / Path(self.form[0]).name


class ReportRecord(msgspec.Struct, frozen=True):
    """`report.json`."""

    rows: tuple[RowRecord, ...]
    receipts: dict[str, Receipt]
    """By title, the first of the student's export."""


@dataclass(frozen=True)
class RunRecord:
    """A finished run."""

    folder: Path
    report: ReportRecord
    manifest: Manifest
    """Of the student."""
    config: Mapping[str, object]
    """Values by dotted name."""
    curves: Mapping[str, Sequence[Mapping[str, float]]]
    """What each training logged, by its name."""
    schedule: Mapping[str, object]
    """What `--max-minutes` reduced, by dotted name."""
    built: Mapping[str, Receipt]
    """What `edgedistill build` measured of the student afterwards, by backend and precision."""

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.resolve().name

    @property
    def metric(self) -> Metric:
        """How its scores are shown."""
        return self.first.shown

    @property
    def first(self) -> Receipt:
        """The receipt of the student's export."""
        return next(iter(self.report.receipts.values()))

    @property
    def passed(self) -> bool:
        """Whether every hop met its budget, and every engine that was built passed its gate."""
        receipts = (*self.report.receipts.values(), *self.built.values())
        return all(receipt.passed for receipt in receipts) and not any(one.failed for one in self.engines)

    @property
    def engines(self) -> list[EngineLine]:
        """A line of each engine of the student."""
        return engine_lines(self.folder / STUDENT)

    @property
    def later_decisions(self) -> list[str]:
        """A line of each bundle that decides by a threshold, which a run never sets."""
        bundles = dict.fromkeys(row.bundle(self.folder) for row in self.deployed)
        found = ((bundle.name, read_manifest(bundle).threshold) for bundle in bundles)
        return [
            f"{name}: the decision changed since the run, to a threshold of {threshold:g}. Summary and the gates of the"
            " run are without it, the scores and pictures of the images with it."
            for name, threshold in found
            if threshold is not None
        ]

    @property
    def gain(self) -> list[str]:
        """What the teacher gave the student, if that was measured."""
        return distillation_gain({row.name: row.score for row in self.report.rows}, self.metric)

    @property
    def deployed(self) -> list[RowRecord]:
        """The networks that a bundle exists of, the student's last form last."""
        return [row for row in self.report.rows if row.name != BASELINE and row.form is not None]


def read_run(folder: Path) -> RunRecord:
    """Read the folder of a finished run.

    Raises:
        UserError: it is not one, or a file in it is damaged.
    """
    if not (folder / "report.json").is_file():
        what = "holds no report.json" if folder.is_dir() else "no such folder"
        raise UserError(f"{folder}: {what}; give the folder of a finished run")
    report = read_record(folder / "report.json", ReportRecord, AGAIN)
    if not report.rows or not report.receipts:
        raise UserError(f"{folder / 'report.json'}: has no networks or no receipt; {AGAIN}")
    schedule = folder / SCHEDULE
    return RunRecord(
        folder,
        report,
        read_manifest(folder / STUDENT),
        read_record(folder / "config.json", dict[str, object], AGAIN),
        {path.parent.name: _read_log(path) for path in sorted(folder.glob("*/metrics.jsonl"))},
        read_record(schedule, dict[str, object], AGAIN) if schedule.is_file() else {},
        {
            path.name.removesuffix(BUILT): read_record(path, Receipt, "delete it, or build again")
            for path in sorted(engines_folder(folder / STUDENT).glob(f"*{BUILT}"))
        },
    )


def _read_log(path: Path) -> list[dict[str, float]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {AGAIN}") from error
