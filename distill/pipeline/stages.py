"""The stages of a run: its data and settings checked, and each network trained, or loaded if it has been."""

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import msgspec
import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from torch import nn

from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError
from deploy.files.atomic import write_json
from deploy.tasks.registry import task_named
from distill.config import ModelConfig, RunConfig, TrainConfig
from distill.data.loader import train_batches
from distill.data.registry import open_splits
from distill.data.splits import Splits
from distill.data.stats import Stats
from distill.data.views import training_stats, training_view
from distill.distillation.build import build_distillation, build_distillation_loss, init_student
from distill.export.evaluate import evaluate, torch_model
from distill.export.to_onnx import input_spec
from distill.losses.expression import parse_terms
from distill.losses.supervised.class_weights import class_weights_of
from distill.losses.supervised.grasp import quality_kind
from distill.losses.task_loss import parse_task_terms, task_methods
from distill.pipeline.validation import check_config, check_splits
from distill.quantization.qat import QatNetwork, to_qat
from distill.run_folder import claim_folder
from distill.training.checkpoint import load_network
from distill.training.checkpoint_metadata import (
    check_metadata,
    checkpoint_metadata,
    find_metadata,
    network_from,
    require_metadata,
)
from distill.training.distributed import warn_of_a_lone_process
from distill.training.log import say
from distill.training.loop import Stage, train
from distill.training.sync_norm import check_norms
from distill.training.tracking import require_tracker, start_tracker
from distill.training.train_state import BEST, finished
from student.zoo import build_network
from teacher.weights import load_weights

QAT_LOSS = {"segmentation": "kl(t=2)", "clamp": "maps", "sigmoid": "grasp_kl"}
"""What the teacher teaches in simulated INT8 where the run's losses are on features alone."""
SHOWN = 2
"""Figures beside the score that a validation logs."""
QAT_CALIBRATION_BATCHES = 4
"""Batches that training in simulated INT8 takes its first ranges from; it learns better ones."""


@dataclass(frozen=True)
class RunContext:
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


def prepare(config: RunConfig) -> RunContext:
    """Check the whole configuration, open the data, claim the output folder, and measure the training split."""
    require_tracker(config.tracker)
    accelerator = Accelerator(
        mixed_precision=_precision(config.precision),
        cpu=not torch.accelerator.is_available(),  # said aloud, or accelerate ignores torchrun on such a machine
        log_with=None if config.tracker == "none" else config.tracker,
        # the others wait while the main process exports
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=6))],
    )
    warn_of_a_lone_process(accelerator)
    check_config(config, accelerator.num_processes)
    splits = open_splits(config.data, config.seed)
    check_splits(config, splits)
    if splits.task == "grasp":
        terms = parse_task_terms(config.loss.task, task_methods(splits.task))
        splits = replace(splits, quality=quality_kind(term.loss for term in terms))
    # what cannot be built must not surprise after hours of training
    teacher, student = (new_network(config, splits, model) for model in (config.teacher, config.student))
    build_distillation_loss(config.distill, parse_terms(config.distill.loss), teacher, student)
    check_norms("teacher-train", config.teacher_train, teacher)
    check_norms("student-train", config.student_train, student)
    for path in config.distill.teachers:
        require_metadata(path)
    if accelerator.is_main_process:
        computed = {"arithmetic": accelerator.mixed_precision, "processes": accelerator.num_processes}
        claim_folder(config, computed)
        _write_stats(config.out / "stats.json", config, splits)
        start_tracker(accelerator, config)
    accelerator.wait_for_everyone()
    stats = msgspec.json.decode((config.out / "stats.json").read_bytes(), type=Stats)
    check_teachers(config, splits, stats)
    spec = input_spec(splits, stats, config.data.size, config.data.resize, config.data.normalize)
    return RunContext(config, splits, stats, spec, accelerator)


def check_teachers(config: RunConfig, splits: Splits, stats: Stats) -> None:
    """Raise UserError where a teacher that is not trained here does not fit the data."""
    weights = config.teacher.weights
    metadata = find_metadata(weights) if weights is not None and config.teacher_train.steps == 0 else None
    if weights is not None and metadata is not None:
        check_metadata(weights, metadata, splits, stats)
    for path in config.distill.teachers:
        network_from(path, splits, stats)


def train_network(
    context: RunContext,
    name: str,
    model: ModelConfig,
    training: TrainConfig,
    teacher: nn.Module | None = None,
) -> Trained:
    """Train one network, unless this run has already done so, and load its best weights."""
    config, folder = context.config, context.config.out / name
    if training.steps == 0 and model.weights is None:
        raise UserError(
            f"the {name} has neither steps nor weights; give --{name}.weights or --{name}-train.steps"
        )
    seconds = finished(folder, training.steps) if config.resume else None
    if seconds is None and training.steps:
        torch.manual_seed(config.seed)  # the same first weights for baseline and student
        network = new_network(config, context.splits, model)
        if teacher is not None:
            init_student(teacher, network, config.distill)
        distils = teacher is not None and config.distill.weight > 0
        stage = training_stage(context, name, model, views=config.distill.views if distils else 0)
        distillation = None
        if teacher is not None and distils:
            data = context.splits, context.stats
            distillation = build_distillation(teacher, network, stage, config, context.accelerator, data)
        options = {"distillation": distillation, "resume": config.resume}
        seconds = train(network, stage, training, context.accelerator, **options)
    if training.steps:  # into a fresh network, so that one just trained and one trained before are alike
        network = new_network(config, context.splits, replace(model, pretrained=False, weights=None))
        load_network(network, folder / BEST)
    else:
        network = new_network(config, context.splits, model)
    return Trained(name, model.arch, network.to(context.accelerator.device).eval(), seconds or 0.0)


def new_network(config: RunConfig, splits: Splits, model: ModelConfig) -> nn.Module:
    """The network of a model configuration for a data set, with its weights file loaded."""
    channels = len(splits.channels)
    network = build_network(
        model.arch,
        channels,
        splits.outputs,
        output_stride=model.output_stride,
        detail=model.detail,
        head_channels=model.head_channels,
        dropout=model.dropout,
        aux=config.loss.aux > 0,
        pretrained=model.pretrained,
    )
    if model.weights is not None:
        load_weights(network, model.weights, channels)
    return network


def training_stage(context: RunContext, name: str, model: ModelConfig, views: int = 0) -> Stage:
    """What the training of a model works on: augmented views of the training split, scored on validation.

    `views` is the fixed number of views an image; 0 gives new ones in every epoch.
    """
    config, splits, stats = context.config, context.splits, context.stats
    view = training_view(config, splits, stats, views)
    return Stage(
        name=name,
        folder=config.out / name,
        view=view,
        mean=torch.tensor(stats.mean).view(-1, 1, 1),
        std=torch.tensor(stats.std).view(-1, 1, 1),
        loss=config.loss,
        seed=config.seed,
        task=splits.task,
        class_weights=class_weights_of(
            config.loss.class_weights, config.loss.class_weight_values, stats.class_pixels
        ),
        evaluate=lambda network: validate(context, network, context.accelerator),
        metadata=checkpoint_metadata(model, config.loss.aux > 0, splits, stats),
    )


def validate(
    context: RunContext, network: nn.Module, accelerator: Accelerator | None = None
) -> dict[str, float]:
    """Scores on the validation split in the arithmetic of training; shared among processes as `evaluate` says."""
    dtypes = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    dtype = dtypes[context.accelerator.mixed_precision]
    model = torch_model(network, context.spec, context.splits, context.accelerator.device, dtype)
    scorer = evaluate(model, context.splits.val, context.splits, accelerator=accelerator)
    further = list(scorer.details().items())[:SHOWN]
    named = {name.lower().replace(" ", "_"): value for name, value in further if value is not None}
    return {task_named(context.splits.task).key: scorer.score(), **named}


def train_qat(context: RunContext, student: nn.Module, teacher: nn.Module) -> QatNetwork | None:
    """Train on in simulated INT8, the teacher still distilling, unless this run has already done so.

    None, and a line that says why, for a network that cannot be trained so.
    """
    config = context.config
    folder = config.out / f"qat-{config.int8.qat_steps}-{config.int8.qat_lr:g}"
    whole_images = replace(
        config.augment, crop=config.data.size
    )  # ranges are learned of what the device will see
    stage = training_stage(
        replace(context, config=replace(config, augment=whole_images)), folder.name, config.student
    )
    steps = config.int8.qat_steps
    training = replace(
        config.student_train,
        steps=steps,
        optimizer="adamw",
        schedule="cosine",
        lr=config.int8.qat_lr,
        head_lr_factor=1.0,
        warmup=0,
        eval_every=max(1, steps // 4),
        masked_norm=False,  # norms are folded, or keep their statistics
        checkpoint_activations=False,  # the simulation reaches the forward pass alone
        compile=False,
    )
    first = train_batches(stage.view, training.batch_size, config.seed, 0, QAT_CALIBRATION_BATCHES)
    device = context.accelerator.device
    images = [((batch.image - stage.mean) / stage.std).to(device) for batch in first]
    try:
        qat = to_qat(student.to(device), images[0][:2], images, fold=config.export.fold)
    except UserError as error:
        say(str(error))
        return None
    if config.resume and finished(folder, steps) is not None:
        load_network(qat, folder / BEST)
    else:
        distillation = None
        if config.distill.weight > 0:
            terms = [term for term in parse_terms(config.distill.loss) if term.feature is None]
            kind = context.splits.quality if context.splits.task == "grasp" else "segmentation"
            data, terms = (context.splits, context.stats), terms or parse_terms(QAT_LOSS[kind])
            distillation = build_distillation(
                teacher, student, stage, config, context.accelerator, data, terms
            )
        train(qat, stage, training, context.accelerator, distillation=distillation, resume=config.resume)
    return qat.eval()


def worth_keeping(context: RunContext, student: nn.Module, qat: QatNetwork) -> bool:
    """Whether training in simulated INT8 kept the student's validation score, within the budget of INT8.

    The main process alone asks.
    """
    key, metric = (task := task_named(context.splits.task)).key, task.metric
    before, after = validate(context, student)[key], validate(context, qat)[key]
    keeps = before - after <= context.config.int8.max_drop
    verdict = "it is exported" if keeps else "over the budget, so the student stays as it was"
    say(f"qat: val {metric} {100 * before:.2f} % before, {100 * after:.2f} % in simulated INT8: {verdict}")
    return keeps


def _write_stats(path: Path, config: RunConfig, splits: Splits) -> None:
    if path.exists():
        return
    stats = training_stats(config, splits)
    absent = [c.name for c, pixels in zip(splits.classes, stats.class_pixels, strict=True) if pixels == 0]
    if absent:
        say(f"warning: no training pixel is labeled {', '.join(absent)}")
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
