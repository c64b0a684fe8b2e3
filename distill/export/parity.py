"""From a trained network to a bundle whose every hop has been measured."""

from functools import partial

from torch import nn

import deploy
from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.bundle.bundle_files import extend_bundle
from deploy.bundle.manifest import RECEIPT, InputSpec
from deploy.evaluation.receipt import Budget, Hop, Receipt, run_hops
from deploy.files.atomic import json_bytes
from deploy.tasks.registry import task_named
from distill.config import RunConfig
from distill.data.sample import IGNORE
from distill.data.splits import Splits
from distill.export.deployable import Deployable, deployable
from distill.export.evaluate import eval_samples, new_scorer, torch_model
from distill.export.to_onnx import export_onnx, write_model_bundle
from student.device import folded


def export(
    network: nn.Module,
    spec: InputSpec,
    splits: Splits,
    config: RunConfig,
    name: str,
    provenance: dict[str, str],
) -> bytes:
    """Write `<name>.bundle` without a receipt, and return the model in it."""
    deployable = device_form(network, spec, splits, fold=config.export.fold)
    model = export_onnx(deployable, config.export.opset)
    write_model_bundle(config.out / f"{name}.bundle", model, deployable, splits, name, provenance)
    return model


def export_and_verify(
    network: nn.Module,
    spec: InputSpec,
    splits: Splits,
    config: RunConfig,
    name: str,
    provenance: dict[str, str],
) -> Receipt:
    """Write `<name>.bundle` with the receipt of torch → ONNX → runtime over the whole test split.

    The torch hop is the network as trained, the ONNX hop its file with every optimization off, the runtime hop what a
    device does: `deploy.load` on the raw image.
    """
    folder = config.out / f"{name}.bundle"
    model = export(network, spec, splits, config, name, provenance)
    task = task_named(splits.task)
    hops = [
        Hop("torch", torch_model(network.cpu(), spec, splits), 0),
        Hop("onnx", task.model(spec, splits.classes, OrtEngine(model, optimize=False), IGNORE), len(model)),
        Hop("runtime", deploy.load(folder, "onnxruntime"), len(model)),
    ]
    receipt = run_hops(
        hops,
        eval_samples(splits.test, splits.optical),
        partial(new_scorer, splits),
        Budget(config.export.max_drop, config.export.min_agreement),
        dataset=splits.name,
        split=splits.tested_on,
        metric=task.metric,
    )
    metrics = {"dataset": splits.name, "split": splits.tested_on, task.key: receipt.hops[-1].score}
    extend_bundle(folder, {RECEIPT: json_bytes(receipt)}, metrics=metrics)
    return receipt


def device_form(
    network: nn.Module, spec: InputSpec, splits: Splits | None = None, *, fold: bool
) -> Deployable:
    """What is exported: with `fold` in its `folded` form, and the receipt compares with the one that was trained."""
    return deployable(folded(network) if fold else network, spec, splits).cpu()
