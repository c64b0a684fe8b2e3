"""What the tests of the search measure candidates by."""

import numpy as np
import onnx

from deploy.evaluation.receipt import Budget
from deploy.quantize.options import Int8Options
from deploy.quantize.qdq import layers
from deploy.quantize.report import Figures
from deploy.quantize.search import quantize
from tests.deploy.quantize.nets import calibration, images, run

LOOSE = Budget(max_drop=0.5, min_agreement=0.5)


class Evaluation:
    """Compares labels with the fp32 model's on other images, which serve as the truth."""

    def __init__(self, model):
        self.images = images(8, seed=1)
        self.truth = run(model, self.images)[0]
        self.models = []

    def __call__(self, candidate, form):
        self.models.append(candidate)
        labels = run(candidate, self.images)[0]
        ious = [
            np.sum((labels == k) & (self.truth == k)) / np.sum((labels == k) | (self.truth == k))
            for k in np.unique(self.truth)
        ]
        return Figures(float(np.mean(ious)), float(np.mean(labels == self.truth)))


def constants(candidate):
    """Names of a candidate's constants, whatever their precision."""
    return {
        tensor.name.removesuffix(".half")
        for tensor in onnx.load_model_from_string(candidate).graph.initializer
    }


class Rule:
    """Scores a candidate by its float layers: mIoU 0.9, less for each of `needed` that is not among them."""

    def __init__(self, model, needed):
        self.names = {
            f"network.{layer.name}.weight": layer.name for layer in layers(model) if layer.kind == "Conv"
        }
        self.needed, self.models = needed, []

    def __call__(self, candidate, form):
        self.models.append(candidate)
        found = constants(candidate)
        in_float = {name for weight, name in self.names.items() if weight in found}
        miou = 0.9 - sum(loss for name, loss in self.needed.items() if name not in in_float)
        return Figures(miou, 1.0 - 0.001 * (len(self.names) - len(in_float)))


def search(model, evaluate, budget=LOOSE, count=32, learned=None, **options):
    lines = []
    made = quantize(
        model,
        calibration(images(count)),
        evaluate,
        Int8Options(budget, **options),
        learned=learned,
        say=lines.append,
    )
    return made, lines
