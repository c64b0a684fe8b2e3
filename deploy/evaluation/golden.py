"""Compare the golden outputs of a bundle with those of an engine on this device."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.backends.engine import CPU, Engine
from deploy.backends.proof import needed_agreement
from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.golden_file import read_golden

LOGITS = 1e-3
"""Largest difference of logits, as a share of the largest golden one, in float32 on a CPU.

Trained networks differed by 1e-6 between torch, ONNX Runtime and OpenVINO; a changed weight may show here and in no
label.
"""


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
    manifest = read_manifest(bundle)
    golden = read_golden(bundle, manifest)
    outputs = engine.run(golden["inputs"])
    agreement = float(np.mean(outputs["labels"] == golden["labels"]))
    finite = bool(np.isfinite(outputs["logits"]).all())
    difference = float(np.abs(outputs["logits"] - golden["logits"]).max())
    backend, precision = engine.name.split()
    needed = needed_agreement(manifest, precision)
    exact = precision == "fp32" and backend in CPU  # GPUs may round what they multiply, as TF32 does
    most = LOGITS * max(1e-3, float(np.abs(golden["logits"]).max())) if exact else np.inf
    passed = finite and agreement >= needed and difference <= most
    return Comparison(
        passed,
        f"{engine.name}: {len(golden['inputs'])} golden inputs, labels agree on {100 * agreement:.3f} % "
        f"(at least {100 * needed:g} %), largest difference of logits {difference:.2g}"
        f"{f' (at most {most:.2g})' if exact else ''}: "
        f"{'passed' if passed else 'FAILED'}",
    )
