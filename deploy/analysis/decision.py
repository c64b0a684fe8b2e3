"""Choose the threshold of a two-class bundle on validation data, and store it in the bundle.

edgedistill threshold BUNDLE [--data FOLDER] [--split val] [--temperature]
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deploy.analysis.calibration import HIGHEST, LOWEST
from deploy.analysis.collect import Findings, analyze, temperature_of
from deploy.analysis.curves import best_f1, sweep
from deploy.bundle.bundle_files import read_manifest, require_unchanged, set_decision
from deploy.bundle.manifest import Manifest
from deploy.command_parser import CommandParser
from deploy.engine_options import add_engine_options, engine_options
from deploy.errors import UserError
from deploy.evaluation.labeled_data import data_folder, require_data
from deploy.evaluation.receipt import Sample
from deploy.files.json_output import add_json, print_json, print_result
from deploy.heartbeat import working
from deploy.loading import load
from deploy.table import format_table
from deploy.tasks.registry import require_classes, task_of
from deploy.tasks.segmentation.model import SegmentationModel


@dataclass(frozen=True)
class Decision:
    """The chosen threshold and temperature, and their effect on the data used to choose them; fractions in 0..1."""

    threshold: float | None
    """Probability of class 1 from which a pixel is class 1; None with more than two classes."""
    temperature: float | None
    f1_before: float | None
    """F1 of class 1 with the bundle's old settings; None with more than two classes."""
    f1_after: float | None
    ece_before: float | None
    """Expected calibration error with the bundle's old settings."""
    ece_after: float | None


def fit_decision(
    bundle: Path,
    data: Path,
    split: str = "val",
    *,
    temperature: bool = False,
    **engine: Any,
) -> Decision:
    """Choose the threshold with the best F1 of class 1 on `data/split`. Reads the bundle and does not write it.

    Args:
        bundle: folder of the bundle.
        data: folder of labeled images.
        split: folder in `data` to choose on.
        temperature: fit a temperature first. Without it, the result has none, even if the bundle has one.
        engine: backend, precision and other options of `deploy.load`.

    Raises:
        UserError: the test split, on which the result could then not be measured; a bundle that does not predict
            classes; more than two classes without `temperature`; data that are missing, damaged or of only one class.
    """
    manifest = read_manifest(bundle)
    _check(manifest, split, temperature)
    require_data(data, split)
    model = load(bundle, **engine)
    require_unchanged(bundle, manifest)
    assert isinstance(model, SegmentationModel)
    before = analyze(model, _samples(manifest, data, split), positive=1)
    binary = len(manifest.classes) == 2
    if binary:
        _require_both(before, manifest, data / split)
    plain = replace(model, threshold=None, temperature=None)
    chosen = temperature_of(plain, _samples(manifest, data, split)) if temperature else None
    scaled = replace(plain, temperature=chosen)
    after = analyze(scaled, _samples(manifest, data, split), positive=1)
    best = best_f1(sweep(after.histogram)) if binary else None
    return Decision(
        threshold=best.threshold if best else None,
        temperature=chosen,
        f1_before=float(before.dataset().f1[0, 1]) if binary else None,
        f1_after=best.f1 if best else None,
        ece_before=before.reliability.ece(),
        ece_after=after.reliability.ece(),
    )


def store_decision(bundle: Path, decision: Decision, split: str = "val") -> Manifest:
    """Write the choice and its F1 into the bundle's manifest; all other files, including engines, are unchanged.

    Raises:
        UserError: the labels of the bundle are not classes, or as `set_decision`.
    """
    require_classes(read_manifest(bundle), bundle, "a threshold")
    metrics = (
        {"threshold f1": decision.f1_after, "threshold split": split}
        if decision.threshold is not None
        else {}
    )
    return set_decision(bundle, decision.threshold, decision.temperature, _NO_METRICS | metrics)


_PURPOSE = (
    "Choose the probability from which a pixel is the second of two classes, by the best F1 on val, and store it in the"
    " bundle."
)
_NO_METRICS: dict[str, float | str | None] = {"threshold f1": None, "threshold split": None}


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_args(argv)
    bundle: Path = options.bundle
    if options.remove:
        set_decision(bundle, None, None, _NO_METRICS)
        line = f"{bundle}: threshold and temperature removed; the larger score decides again"
        print_result(line, {"bundle": bundle, "threshold": None, "temperature": None}, options.json)
        return 0
    with working("choosing the threshold"):
        decision = fit_decision(
            bundle,
            options.data or data_folder(bundle),
            options.split,
            temperature=options.temperature,
            **engine_options(options),
        )
    manifest = store_decision(bundle, decision, options.split)
    if options.json:
        print_json(decision)
        return 0
    print(decision_table(decision, manifest.classes[1].name, options.split))
    print(f"written to {bundle}/manifest.json; undo it with --remove")
    lower = sorted({file.precision for file in manifest.files.values()} - {"", "fp32"})
    if lower and decision.threshold is not None:
        print(
            f"{', '.join(lower)}: passed with the labels of before; `edgedistill build {bundle}` measures again"
        )
    return 0


def decision_table(decision: Decision, name: str, split: str) -> str:
    """An aligned table of the metrics before and after, and the choice, for the class called `name`."""
    rows = [
        (f"F1 {name} %", _percent(decision.f1_before), _percent(decision.f1_after)),
        ("calibration error %", _percent(decision.ece_before), _percent(decision.ece_after)),
    ]
    rows = rows if decision.threshold is not None else rows[1:]
    lines = [format_table((f"on {split}", "before", "after"), rows)]
    if decision.threshold is not None:
        lines.append(f"threshold: {name} from a probability of {decision.threshold:g}")
    if decision.temperature is not None:
        at_end = decision.temperature in (LOWEST, HIGHEST)
        lines.append(
            f"temperature: {decision.temperature:.3f}" + (", an end of the searched range" if at_end else "")
        )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="edgedistill threshold", description=_PURPOSE)
    parser.add_argument(
        "bundle", type=Path, metavar="BUNDLE", help="bundle of two classes; its manifest is rewritten"
    )
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="labeled data (default: beside the bundle)"
    )
    parser.add_argument("--split", default="val", help="folder in it to choose on; not test (default: val)")
    parser.add_argument(
        "--temperature", action="store_true", help="calibrate probabilities first; for any number of classes"
    )
    parser.add_argument("--remove", action="store_true", help="remove threshold and temperature instead")
    add_engine_options(parser)
    add_json(parser)
    return parser


def _check(manifest: Manifest, split: str, temperature: bool) -> None:
    require_classes(manifest, manifest.name, "a threshold")
    if Path(split).name == "test":
        raise UserError("--split test: is for measuring the result; choose the threshold on val")
    count = len(manifest.classes)
    if count < 2 or (count > 2 and not temperature):
        remedy = "; --temperature alone calibrates it" if count > 2 else ""
        raise UserError(f"{manifest.name}: has {count} classes, a threshold is for two{remedy}")


def _samples(manifest: Manifest, data: Path, split: str) -> Iterator[Sample]:
    return task_of(manifest).read(data / split, manifest)


def _require_both(findings: Findings, manifest: Manifest, folder: Path) -> None:
    name, counts = manifest.classes[1].name, findings.histogram
    for what, pixels in ((f"is {name}", counts.positive), (f"is not {name}", counts.negative)):
        if not pixels.any():
            raise UserError(
                f"{folder}: no valid pixel {what}, so no threshold can be chosen; add such images"
            )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"
