"""The road from labelled images to a verified bundle: train the teacher, distil the student, export, prove, time.

Each stage leaves its result in the run's folder, so an interrupted run goes on where it was:

    config.json, stats.json            what was asked for; channel and class statistics of the training split
    teacher/ baseline/ student/        checkpoints and logs of each training
    teacher.bundle/ student.bundle/    what a device needs
    report.json, report.md, pictures/  what came out
"""

import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from accelerate import Accelerator
from torch import nn

from deploy.bundle import InputSpec
from deploy.errors import UserError
from deploy.files import write_json
from deploy.metrics import Scores
from deploy.runtime import load
from deploy.verify import Budget, Hop, Receipt, require_passed, run_hops
from distill.checkpoint import load_network
from distill.config import ModelConfig, RunConfig, TrainConfig
from distill.data.augment import check_augment
from distill.data.datasets import open_splits
from distill.data.loader import TrainView
from distill.data.splits import Splits
from distill.data.stats import Stats, compute_stats
from distill.deployable import Deployable
from distill.evaluate import eval_samples, evaluate, torch_model
from distill.export import export_onnx, input_spec, write_model_bundle
from distill.log import console
from distill.losses.task import log_frequency_weights
from distill.report import Row, latency_of, write_pictures, write_report
from distill.resume import claim_folder
from distill.train import Stage, train
from student.zoo import build_network, count_macs, count_parameters
from teacher.fold import fold_pyramid
from teacher.pspnet import PSPNet
from teacher.weights import load_weights


@dataclass(frozen=True)
class Road:
    """What all stages of a run share."""

    config: RunConfig
    splits: Splits
    stats: Stats
    spec: InputSpec
    accelerator: Accelerator

    @property
    def main(self) -> bool:
        """True in the one process that evaluates, exports and writes."""
        return self.accelerator.is_main_process


@dataclass(frozen=True)
class Trained:
    """A network with the seconds that its training took in this process."""

    network: nn.Module
    seconds: float


def run(config: RunConfig) -> Path:
    """Walk the whole road and return the path of the report.

    Raises:
        UserError: a mistake in the configuration or the data.
        GateFailed: a hop over its budget, after everything has been written.
    """
    road = prepare(config)
    teacher = train_network(road, "teacher", config.teacher, config.teacher_train)
    baseline = None
    if config.baseline:
        baseline = train_network(road, "baseline", config.student, config.student_train)
    student = train_network(road, "student", config.student, config.student_train, teacher.network)
    if not road.main:
        return config.out
    teacher_scores = test_scores(road, teacher.network)
    baseline_scores = None if baseline is None else test_scores(road, baseline.network)
    receipt = export(road, "student", student.network)
    export_unproved(road, "teacher", teacher.network)
    rows = [
        describe(road, "teacher", teacher, teacher_scores.miou, teacher_scores.boundary_f1),
        *(
            [describe(road, "baseline", baseline, baseline_scores.miou, baseline_scores.boundary_f1)]
            if baseline is not None and baseline_scores is not None
            else []
        ),
        describe(road, "student", student, receipt.hops[0].miou, receipt.hops[0].boundary_f1),
    ]
    latency = latency_of({name: config.out / f"{name}.bundle" for name in ("teacher", "student")})
    pictures = write_pictures(road.splits, config.out)
    report = write_report(config, rows, receipt, latency, pictures)
    require_passed(receipt)
    return report


def prepare(config: RunConfig) -> Road:
    """Open the data, claim the output folder, and measure the training split."""
    check_augment(config.augment)
    accelerator = Accelerator(mixed_precision=_precision(config.precision))
    splits = open_splits(config.data, config.seed)
    if accelerator.is_main_process:
        claim_folder(config)
    accelerator.wait_for_everyone()
    stats = _stats(config.out / "stats.json", splits)
    spec = input_spec(splits, stats, config.data.size, config.data.resize)
    return Road(config, splits, stats, spec, accelerator)


def train_network(
    road: Road, name: str, model: ModelConfig, training: TrainConfig, teacher: nn.Module | None = None
) -> Trained:
    """Build and train one network, or load it if this run has already trained it."""
    config = road.config
    torch.manual_seed(config.seed)  # the same first weights for baseline and student
    network = new_network(road, model)
    folder = config.out / name
    if config.resume and _finished(folder, training):
        load_network(network, folder / "best.safetensors")
        return Trained(network.to(road.accelerator.device).eval(), 0.0)
    if training.steps == 0:
        if model.weights is None:
            raise UserError(
                f"the {name} has neither steps nor weights; give --{name}.weights or --{name}-train.steps"
            )
        return Trained(network.to(road.accelerator.device).eval(), 0.0)
    start = time.perf_counter()
    train(network, _stage(road, name), training, road.accelerator, teacher=teacher, resume=config.resume)
    return Trained(network, time.perf_counter() - start)


def new_network(road: Road, model: ModelConfig) -> nn.Module:
    """The network of a model configuration, with its weights file loaded."""
    channels = len(road.splits.channels)
    network = build_network(
        model.arch,
        channels,
        len(road.splits.classes),
        output_stride=model.output_stride,
        head_channels=model.head_channels,
        dropout=model.dropout,
        aux=road.config.loss.aux > 0,
        pretrained=model.pretrained,
    )
    if model.weights is not None:
        load_weights(network, model.weights, channels)
    return network


def test_scores(road: Road, network: nn.Module) -> Scores:
    """Scores of a network on the test split, in float32."""
    model = torch_model(network, road.spec, road.splits, road.accelerator.device)
    return evaluate(model, road.splits.test, road.splits)


def export(road: Road, name: str, network: nn.Module) -> Receipt:
    """Write the network's bundle and prove it: torch → ONNX → runtime on the whole test split."""
    from deploy.backends.ort import OrtEngine
    from deploy.runtime import Model

    config, splits = road.config, road.splits
    folder = config.out / f"{name}.bundle"
    deployable = device_form(road, network)
    model = export_onnx(deployable, config.export.opset)
    write_model_bundle(folder, model, deployable, splits, name, provenance(road))
    size = len(model)
    hops = [
        Hop("torch", torch_model(network, road.spec, splits), 0),
        Hop("onnx", Model(road.spec, splits.classes, OrtEngine(model, optimize=False)), size),
        Hop("runtime", load(folder), size),
    ]
    receipt = run_hops(
        hops,
        eval_samples(splits.test, splits.optical),
        len(splits.classes),
        Budget(config.export.max_miou_drop, config.export.min_agreement),
        dataset=splits.name,
        split="test",
        classes=[c.name for c in splits.classes],
    )
    metrics = {"dataset": splits.name, "split": "test", "miou": receipt.hops[-1].miou}
    encoded = msgspec.json.format(msgspec.json.encode(receipt), indent=2)
    write_model_bundle(folder, model, deployable, splits, name, provenance(road), metrics, encoded)
    return receipt


def export_unproved(road: Road, name: str, network: nn.Module) -> None:
    """Write a bundle for timing and pictures only."""
    deployable = device_form(road, network)
    model = export_onnx(deployable, road.config.export.opset)
    write_model_bundle(
        road.config.out / f"{name}.bundle", model, deployable, road.splits, name, provenance(road)
    )


def device_form(road: Road, network: nn.Module) -> Deployable:
    """What is exported: the network with its pyramid folded (the receipt compares it with the unfolded one)."""
    if road.config.export.fold and isinstance(network, PSPNet):
        network = fold_pyramid(network)
    return Deployable(network, road.spec).cpu()


def describe(road: Road, name: str, trained: Trained, miou: float, boundary_f1: float) -> Row:
    """The report's row of one network."""
    return Row(
        name=name,
        arch=(road.config.teacher if name == "teacher" else road.config.student).arch,
        parameters=count_parameters(trained.network),
        macs=count_macs(trained.network, len(road.splits.channels), road.config.data.size),
        miou=miou,
        boundary_f1=boundary_f1,
        train_seconds=trained.seconds,
    )


def provenance(road: Road) -> dict[str, str]:
    """Where a bundle comes from."""
    config = road.config
    return {"teacher": config.teacher.arch, "student": config.student.arch, "seed": str(config.seed)}


def _stage(road: Road, name: str) -> Stage:
    config, splits, stats = road.config, road.splits, road.stats
    view = TrainView(
        splits.train,
        size=config.data.size,
        resize=config.data.resize,
        augment=config.augment,
        mean=stats.mean,
        optical=splits.optical,
        seed=config.seed,
        cache=config.data.cache,
    )
    half = road.accelerator.mixed_precision != "no"

    def validate(network: nn.Module) -> dict[str, float]:
        model = torch_model(network, road.spec, splits, road.accelerator.device, half=half)
        scores = evaluate(model, splits.val, splits)
        return {"miou": scores.miou, "pixel_accuracy": scores.pixel_accuracy}

    return Stage(
        name=name,
        folder=config.out / name,
        view=view,
        mean=torch.tensor(stats.mean).view(-1, 1, 1),
        std=torch.tensor(stats.std).view(-1, 1, 1),
        loss=config.loss,
        seed=config.seed,
        class_weights=log_frequency_weights(stats.class_pixels) if config.loss.class_weights else None,
        evaluate=validate,
    )


def _stats(path: Path, splits: Splits) -> Stats:
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=Stats)
    stats = compute_stats(splits.train, len(splits.classes))
    absent = [c.name for c, pixels in zip(splits.classes, stats.class_pixels, strict=True) if pixels == 0]
    if absent:
        console.print(f"warning: no training pixel is labelled {', '.join(absent)}", highlight=False)
    write_json(path, stats)
    return stats


def _finished(folder: Path, training: TrainConfig) -> bool:
    from distill.checkpoint import read_meta

    last = folder / "last.safetensors"
    return last.exists() and read_meta(last)["step"] == training.steps


def _precision(asked: str) -> str:
    """accelerate's name for it; `auto` is bfloat16 where the device computes in it, else float32."""
    names = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
    if asked != "auto":
        return names[asked]
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    # Half precision pays on a CPU with matrix units, and on AMD's AVX-512 (measured 2×); on Intel's without AMX
    # it was measured no faster than float32.
    cpu = torch.cpu.get_capabilities()
    fast = cpu.get("amx_bf16") or (cpu.get("avx512_bf16") and "Intel" not in cpu.get("cpu_name", ""))
    return "bf16" if fast else "no"
