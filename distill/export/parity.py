"""Export a trained network to a bundle, and verify the accuracy of each hop."""

from functools import partial
from pathlib import Path

from torch import nn

import deploy
from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.bundle.bundle_files import extend_bundle
from deploy.bundle.manifest import RECEIPT, InputSpec
from deploy.evaluation.receipt import Budget, Hop, Receipt, run_hops
from deploy.files.atomic import json_bytes
from distill.data.sample import IGNORE
from distill.export.deployable import Deployable
from distill.export.evaluate import eval_samples, new_scorer, torch_model
from distill.export.to_onnx import export_onnx, write_model_bundle
from distill.run_context import RunContext
from distill.tasks.segmentation import argmax_head
from distill.tasks.task import Head
from student.device import folded


def export(folder: Path, network: nn.Module, context: RunContext, provenance: dict[str, str]) -> bytes:
    """Write a bundle without a receipt.

    Args:
        folder: folder of the bundle.
        network: the trained network.
        context: context of the run.
        provenance: where the weights came from, for the manifest.

    Returns:
        The ONNX model in the bundle.
    """
    config, data = context.config.export, context.data
    deployable = device_form(network, context.spec, data.task.head(data.stats), fold=config.fold)
    model = export_onnx(deployable, config.opset)
    write_model_bundle(folder, model, deployable, data, provenance)
    return model


def verify_export(folder: Path, network: nn.Module, model: bytes, context: RunContext) -> Receipt:
    """Measure torch → ONNX → runtime on the whole test split, and add the receipt to the bundle.

    The torch hop is the network as trained, the ONNX hop is its file without any optimization, and the runtime hop does
    what a device does: `deploy.load` on the raw image.

    Args:
        folder: folder of the bundle.
        network: the trained network.
        model: the ONNX model in the bundle.
        context: context of the run.

    Returns:
        The receipt, which may have failed.
    """
    config, data, spec = context.config.export, context.data, context.spec
    splits, task = context.splits, context.task.device
    onnx = task.model(spec, splits.classes, OrtEngine(model, optimize=False), IGNORE)
    hops = [
        Hop("torch", torch_model(network.cpu(), spec, data), 0),
        Hop("onnx", onnx, len(model)),
        Hop("runtime", deploy.load(folder, "onnxruntime"), len(model)),
    ]
    receipt = run_hops(
        hops,
        eval_samples(splits.test, data),
        partial(new_scorer, data),
        Budget(config.max_drop, config.min_agreement),
        dataset=splits.name,
        split=splits.tested_on,
        metric=task.metric,
    )
    metrics = {"dataset": splits.name, "split": splits.tested_on, task.metric.key: receipt.hops[-1].score}
    extend_bundle(folder, {RECEIPT: json_bytes(receipt)}, metrics=metrics)
    return receipt


def device_form(network: nn.Module, spec: InputSpec, head: Head = argmax_head, *, fold: bool) -> Deployable:
    """The network to export; with `fold` in its `folded` form, which the receipt compares with the trained form."""
    return Deployable(folded(network) if fold else network, spec, head).cpu()
