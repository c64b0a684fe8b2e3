"""Whether a student of another package, or a user's own, can be exported: tried before it is trained."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.errors import UserError
from deploy.heartbeat import working
from deploy.text import shown
from distill.config import RunConfig
from distill.data.splits import Splits
from distill.data.stats import unmeasured
from distill.export.deployable import TorchEngine
from distill.export.parity import device_form
from distill.export.to_onnx import export_onnx, input_spec
from distill.pipeline.networks import new_network
from distill.tasks.task import PreparedData, TrainingTask
from distill.training.log import say
from student.zoo import is_external

TOLERANCE = 1e-3
"""Largest difference of a score between torch and ONNX, relative to the largest score."""
BATCHES = (1, 3)
"""Numbers of images: a device runs one, and evaluation several."""


def check_export(config: RunConfig, splits: Splits, task: TrainingTask) -> None:
    """Export an untrained student and compare it with torch, if it is no network of this project.

    Those of this project are exported in its tests.

    Args:
        config: of the run.
        splits: the data set.
        task: what the student is for.

    Raises:
        UserError: it cannot be exported, or computes something else then.
    """
    if not is_external(config.student.arch):
        return
    with working(f"trying to export {config.student.arch}", say):
        network = new_network(config, replace(config.student, pretrained=False, weights=None), splits, task)
        difference = export_difference(config, network, splits, task)
    if not difference <= TOLERANCE:
        raise UserError(
            f"--student.arch {config.student.arch}: the export computes something else (scores differ by"
            f" {difference:.2g} of the largest one); choose another student"
        )


def export_difference(config: RunConfig, network: nn.Module, splits: Splits, task: TrainingTask) -> float:
    """Largest difference of a score between torch and ONNX on random images, relative to the largest score.

    Raises:
        UserError: the network cannot be exported, or ONNX Runtime cannot run it.
    """
    count = len(splits.channels)
    stats = unmeasured(config.data, count, len(splits.classes))
    spec = input_spec(PreparedData(splits, stats, task), config.data)
    head = task.head(stats)
    try:
        with silenced():
            model = export_onnx(
                device_form(network, spec, head, fold=config.export.fold), config.export.opset
            )
    except Exception as error:  # of torch.export, the converter and the checker
        raise UserError(
            f"--student.arch {config.student.arch}: cannot be exported to ONNX ({reason_of(error)}); choose another"
            " student"
        ) from error
    engines = TorchEngine(device_form(network, spec, head, fold=False)), OrtEngine(model, optimize=False)
    rng = np.random.default_rng(0)
    worst = 0.0
    for images in BATCHES:
        shape = (spec.height, spec.width)
        size = (images, *shape, count) if spec.layout == "NHWC" else (images, count, *shape)
        image = rng.normal(0, 1, size).astype(np.float32)
        if spec.dtype == "uint8":
            image = rng.integers(0, 256, size).astype(np.uint8)
        ours, theirs = (engine.run(image)["logits"].astype(np.float64) for engine in engines)
        scale = max(float(np.abs(ours).max()), torch.finfo(torch.float32).tiny)
        worst = max(worst, float(np.abs(ours - theirs).max()) / scale)
    return worst


def reason_of(error: BaseException) -> str:
    """The first line of what an exception was first caused by, in plain characters."""
    while error.__cause__ is not None:
        error = error.__cause__
    return shown((str(error).strip().splitlines() or [type(error).__name__])[0][:200])


@contextmanager
def silenced() -> Iterator[None]:
    """Within this context nothing is logged: the exporter prints whole graphs of what it cannot export."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
