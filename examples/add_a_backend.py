"""Run a bundle on an engine of your own, and compare it with ONNX Runtime.

    python examples/add_a_backend.py runs/smoke/student.bundle      # needs edgedistill[quantize]

The engine here is ONNX's reference implementation, slow and simple. Any object with `name`, `file` and `run` is a
`deploy.backends.engine.Engine`; pre- and postprocessing stay those of the bundle.
"""

import sys
from pathlib import Path

import numpy as np
from onnx.reference import ReferenceEvaluator

import edgedistill
from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.manifest import MODEL
from deploy.latency.latency import sample_image
from deploy.tasks.registry import model_of


class ReferenceEngine:
    """A network run by `onnx.reference`."""

    def __init__(self, file: Path) -> None:
        self.name, self.file = "onnx reference", file
        self._network = ReferenceEvaluator(str(file))

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs "labels" uint8 N×H×W and "logits" float32 N×K×h×w of a batch in the layout of the bundle's input."""
        [name] = map(str, self._network.input_names)
        values = map(np.asarray, self._network.run(None, {name: batch}))
        return dict(zip(map(str, self._network.output_names), values, strict=True))


def main(bundle: str | Path) -> float:
    """Return the share of an image's pixels that both engines label alike."""
    folder = Path(bundle)
    ours = model_of(read_manifest(folder), ReferenceEngine(folder / MODEL))
    theirs = edgedistill.load(folder, "onnxruntime", precision="fp32")
    image, _ = sample_image(folder, theirs.input)
    results = [model(image) for model in (ours, theirs)]
    for model, result in zip((ours, theirs), results, strict=True):
        print(f"{model.engine.name}: {result.timings.engine_ms:.2f} ms")
    agreement = float((results[0].labels == results[1].labels).mean())
    print(f"{100 * agreement:.2f} % of the pixels have the same label")
    return agreement


if __name__ == "__main__":
    main(*sys.argv[1:])
