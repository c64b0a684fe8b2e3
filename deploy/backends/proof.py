"""Which precisions of a bundle have passed an accuracy gate: `auto` takes no other, however fast it is."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from deploy.backends.engine import CPU_MODELS
from deploy.backends.setting import BF16, Setting
from deploy.bundle.engine_files import engines_folder
from deploy.bundle.manifest import Manifest, golden_metric
from deploy.files.json_files import read_json

MIN_AGREEMENT: Mapping[str, float] = {"fp32": 0.999, "fp16": 0.995, BF16: 0.995, "int8": 0.98, "fp8": 0.98}
"""Smallest fraction of golden pixels with the expected label.

The golden outputs are those of the fp32 network. Another precision may differ from them by as much as its gate allows
when it is added to the bundle (`deploy.build.steps`); bf16 has no other gate than this one, and that of fp16.
"""
GOLDEN_SLACK = 0.01
"""Tolerance below the agreement that was recorded for a precision: it passed its gate on many images, and the golden
images are few."""


class _Verdict(msgspec.Struct):
    """The field of a receipt that tells whether a backend passed."""

    passed: bool


def needed_agreement(manifest: Manifest, precision: str) -> float:
    """Smallest fraction of golden pixels that must have the expected label in this precision."""
    recorded = manifest.metrics.get(golden_metric(precision))
    needed = MIN_AGREEMENT[precision]
    return needed if recorded is None else min(needed, float(recorded) - GOLDEN_SLACK)


def may_measure(folder: Path, manifest: Manifest, setting: Setting) -> bool:
    """Whether a setting is worth measuring: nothing that is known before speaks against its accuracy.

    A model of lower precision must have passed its gate, which the manifest records; bf16 is checked when it is
    measured. A setting that `edgedistill build` found over its budget on this machine is out.
    """
    precision = setting.precision
    made = precision in ("fp32", BF16) or (
        CPU_MODELS[precision] in manifest.files and golden_metric(precision) in manifest.metrics
    )
    return made and not failed_here(folder, setting)


def failed_here(folder: Path, setting: Setting) -> bool:
    """Whether `edgedistill build` measured this backend and precision on this machine, and it was over its budget."""
    path = engines_folder(folder) / f"{setting.backend}-{setting.precision}.receipt.json"
    try:
        return not read_json(path, _Verdict).passed
    except (OSError, ValueError):  # never measured, or not ours
        return False


def passes(manifest: Manifest, setting: Setting, agreement: float | None) -> bool:
    """Whether labels that agree with this fraction of the golden ones are right; None: there are none to compare."""
    if agreement is None:
        return setting.precision != BF16
    return agreement >= needed_agreement(manifest, setting.precision)
