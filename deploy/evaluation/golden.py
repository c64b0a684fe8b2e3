"""Compare the golden outputs of a bundle with those of an engine on this device."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.backends.engine import Engine
from deploy.bundle.bundle_files import read_golden, read_manifest
from deploy.bundle.manifest import golden_metric

MIN_AGREEMENT = {"fp32": 0.999, "fp16": 0.995, "int8": 0.98}
"""Smallest fraction of golden pixels with the expected label.

The golden outputs are those of the fp32 network. Another precision may differ from them by as much as its gate allows
when it is added to the bundle (`deploy.build.steps`).
"""
GOLDEN_SLACK = 0.01
"""Tolerance below the agreement that was recorded for a precision: it passed its gate on many images, and the golden
images are few."""


@dataclass(frozen=True)
class Comparison:
    """Result of the comparison."""

    passed: bool
    text: str
    """The figures in one line."""


def compare(bundle: Path, engine: Engine) -> Comparison:
    """Run the golden inputs of a bundle and compare the outputs.

    Raises:
        UserError: the golden outputs are missing or damaged.
    """
    golden = read_golden(bundle)
    outputs = engine.run(golden["inputs"])
    agreement = float(np.mean(outputs["labels"] == golden["labels"]))
    difference = float(np.abs(outputs["logits"] - golden["logits"]).max())
    _, precision = engine.name.split()
    needed = MIN_AGREEMENT[precision]
    recorded = read_manifest(bundle).metrics.get(golden_metric(precision))
    if recorded is not None:
        needed = min(needed, float(recorded) - GOLDEN_SLACK)
    passed = agreement >= needed
    return Comparison(
        passed,
        f"{engine.name}: {len(golden['inputs'])} golden inputs, labels agree on {100 * agreement:.3f} % "
        f"(at least {100 * needed:g} %), largest difference of logits {difference:.2g}: "
        f"{'passed' if passed else 'FAILED'}",
    )
