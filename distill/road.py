"""The road from labelled images to a verified bundle: train the teacher, distil the student, export, prove, time.

Each stage leaves its result in the run's folder, so an interrupted run goes on where it was:

    config.json, stats.json              what was asked for; channel and class statistics of the training split
    teacher/ baseline/ student/          checkpoints and logs of each training
    teacher.bundle/ student.bundle/      what a device needs
    report.json, report.md, pictures/    what came out; samples/ to try the bundle on
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import msgspec
import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from torch import nn

from deploy.bundle import InputSpec
from deploy.errors import UserError
from deploy.files import write_json
from deploy.metrics import Scores
from deploy.verify import HopReceipt, require_passed
from distill.check import check_config
from distill.checkpoint import load_network
from distill.config import ModelConfig, RunConfig, TrainConfig
from distill.data.datasets import open_splits
from distill.data.splits import Splits
from distill.data.stats import Stats, compute_stats
from distill.data.view import TrainView
from distill.evaluate import evaluate, torch_model
from distill.export import input_spec
from distill.log import say
from distill.losses.task import log_frequency_weights
from distill.prove import export, export_proved
from distill.report import Row, latency_of, write_pictures, write_report
from distill.resume import claim_folder
from distill.state import BEST, finished
from distill.train import Stage, train
from student.zoo import build_network, count_macs, count_parameters
from teacher.weights import load_weights


@dataclass(frozen=True)
class Road:
    """What all stages of a run share."""

    config: RunConfig
    splits: Splits
    stats: Stats
    spec: InputSpec
    accelerator: Accelerator


@dataclass(frozen=True)
class Trained:
    """A network and the seconds that its training took, over all processes that worked on it in turn."""

    name: str
    arch: str
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
    trained = [teacher]
    if config.baseline:
        trained.append(train_network(road, "baseline", config.student, config.student_train))
    student = train_network(road, "student", config.student, config.student_train, teacher.network)
    trained.append(student)
    if not road.accelerator.is_main_process:
        return config.out
    origin = {"teacher": config.teacher.arch, "student": config.student.arch, "seed": str(config.seed)}
    receipt = export_proved(student.network, road.spec, road.splits, config, "student", origin)
    export(teacher.network, road.spec, road.splits, config, "teacher", origin)
    scores = [*(test_scores(road, one.network) for one in trained[:-1]), receipt.hops[0]]
    rows = [describe(road, *pair) for pair in zip(trained, scores, strict=True)]
    latency = latency_of({name: config.out / f"{name}.bundle" for name in ("teacher", "student")})
    pictures = write_pictures(road.splits, config.out)
    report = write_report(config, rows, receipt, latency, pictures)
    require_passed(receipt)
    return report


def prepare(config: RunConfig) -> Road:
    """Check the whole configuration, open the data, claim the output folder, and measure the training split."""
    accelerator = Accelerator(
        mixed_precision=_precision(config.precision),
        cpu=not torch.accelerator.is_available(),  # said aloud, or accelerate ignores torchrun on such a machine
        # the others wait while the main process evaluates
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=6))],
    )
    check_config(config, accelerator.num_processes)
    splits = open_splits(config.data, config.seed)
    for model in (
        config.teacher,
        config.student,
    ):  # what cannot be built must not surprise after hours of training
        new_network(config, splits, model)
    if accelerator.is_main_process:
        computed = {"arithmetic": accelerator.mixed_precision, "processes": accelerator.num_processes}
        claim_folder(config, computed)
        _write_stats(config.out / "stats.json", splits)
    accelerator.wait_for_everyone()
    stats = msgspec.json.decode((config.out / "stats.json").read_bytes(), type=Stats)
    spec = input_spec(splits, stats, config.data.size, config.data.resize)
    return Road(config, splits, stats, spec, accelerator)


def train_network(
    road: Road, name: str, model: ModelConfig, training: TrainConfig, teacher: nn.Module | None = None
) -> Trained:
    """Train one network, unless this run has already done so, and load its best weights."""
    config, folder = road.config, road.config.out / name
    if training.steps == 0 and model.weights is None:
        raise UserError(
            f"the {name} has neither steps nor weights; give --{name}.weights or --{name}-train.steps"
        )
    seconds = finished(folder, training.steps) if config.resume else None
    if seconds is None and training.steps:
        torch.manual_seed(config.seed)  # the same first weights for baseline and student
        network = new_network(config, road.splits, model)
        stage = training_stage(road, name)
        seconds = train(network, stage, training, road.accelerator, teacher=teacher, resume=config.resume)
    if training.steps:  # into a fresh network, so that one just trained and one trained before are alike
        network = new_network(config, road.splits, replace(model, pretrained=False, weights=None))
        load_network(network, folder / BEST)
    else:
        network = new_network(config, road.splits, model)
    return Trained(name, model.arch, network.to(road.accelerator.device).eval(), seconds or 0.0)


def new_network(config: RunConfig, splits: Splits, model: ModelConfig) -> nn.Module:
    """The network of a model configuration for a data set, with its weights file loaded."""
    channels = len(splits.channels)
    network = build_network(
        model.arch,
        channels,
        len(splits.classes),
        output_stride=model.output_stride,
        head_channels=model.head_channels,
        dropout=model.dropout,
        aux=config.loss.aux > 0,
        pretrained=model.pretrained,
    )
    if model.weights is not None:
        load_weights(network, model.weights, channels)
    return network


def training_stage(road: Road, name: str) -> Stage:
    """What the training called `name` works on: augmented views of the training split, scored on validation."""
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
    dtype = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[
        road.accelerator.mixed_precision
    ]

    def validate(network: nn.Module) -> dict[str, float]:
        model = torch_model(network, road.spec, splits, road.accelerator.device, dtype)
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


def test_scores(road: Road, network: nn.Module) -> Scores:
    """Scores of a network on the test split, in float32."""
    model = torch_model(network, road.spec, road.splits, road.accelerator.device)
    return evaluate(model, road.splits.test, road.splits)


def describe(road: Road, trained: Trained, scores: Scores | HopReceipt) -> Row:
    """The report's row of a network, with its scores on the test split."""
    return Row(
        name=trained.name,
        arch=trained.arch,
        parameters=count_parameters(trained.network),
        macs=count_macs(trained.network, len(road.splits.channels), road.config.data.size),
        miou=scores.miou,
        boundary_f1=scores.boundary_f1,
        train_seconds=trained.seconds,
    )


def _write_stats(path: Path, splits: Splits) -> None:
    if path.exists():
        return
    stats = compute_stats(splits.train, len(splits.classes))
    absent = [c.name for c, pixels in zip(splits.classes, stats.class_pixels, strict=True) if pixels == 0]
    if absent:
        say(f"warning: no training pixel is labelled {', '.join(absent)}")
    write_json(path, stats)


def _precision(asked: str) -> str:
    """accelerate's name for it; `auto` is bfloat16 where the device computes in it, else float32 (float16 on a GPU)."""
    names = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
    if torch.cuda.is_available():
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return names.get(asked, "bf16" if bf16 else "fp16")
    if asked == "fp16":
        raise UserError("--precision fp16 needs a GPU; use bf16 or fp32 on a CPU")
    # Half precision pays on a CPU with matrix units, and on AMD's AVX-512 (measured 2×); on Intel's without AMX
    # it was measured no faster than float32.
    cpu = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    fast = cpu.get("amx_bf16") or (cpu.get("avx512_bf16") and "Intel" not in cpu.get("cpu_name", ""))
    return names.get(asked, "bf16" if fast else "no")
