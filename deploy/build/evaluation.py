"""Measure candidates of a quantization on labeled images."""

from collections.abc import Sequence

import numpy as np

from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.bundle.manifest import Manifest
from deploy.evaluation.receipt import Sample, Scorer
from deploy.quantize.options import Form
from deploy.quantize.report import Figures
from deploy.quantize.simulation import simulated
from deploy.tasks.registry import model_of, task_of


class Evaluation:
    """Measures candidates of `quantize` on a few labeled images."""

    def __init__(self, manifest: Manifest, model: bytes, samples: Sequence[Sample]) -> None:
        self._manifest, self._samples = manifest, samples
        reference = model_of(manifest, OrtEngine(model))
        self._labels = [reference(image).labels for _, image, _, _ in samples]

    def __call__(self, model: bytes, form: Form | None) -> Figures:
        candidate = model_of(self._manifest, simulated(model) if form == "tensorrt" else OrtEngine(model))
        scorer = scorer_of(self._manifest)
        same = pixels = 0
        for (_, image, truth, valid), expected in zip(self._samples, self._labels, strict=True):
            result = candidate(image)
            scorer.update(result, truth, valid)
            same += int(np.count_nonzero((result.labels == expected) & valid))
            pixels += int(np.count_nonzero(valid))
        return Figures(score=scorer.score(), agreement=same / max(pixels, 1))


def scorer_of(manifest: Manifest) -> Scorer:
    """A new scorer of the bundle's task and classes."""
    return task_of(manifest).scorer([one.name for one in manifest.classes])
