"""Pre-train a student's backbone: it learns a teacher's feature maps on images without labels.

FitNets' stage-wise training (Romero et al., arXiv:1412.6550) with several maps at once, by the cosine of their
features. Networks for which nobody has published ImageNet weights start from something so.
"""

from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from deploy.files.atomic import write_json
from deploy.files.json_files import read_record
from deploy.heartbeat import working
from distill.config import DistillConfig
from distill.data.datasets.pairs import RGB_CHANNELS
from distill.data.sample import Batch
from distill.data.splits import Splits
from distill.data.stats import Stats, compute_stats
from distill.data.train_view import TrainView
from distill.distillation.build import build_distillation_loss
from distill.distillation.teachers import online_teacher
from distill.losses.distillation_loss import TeacherOutput, parse_distillation
from distill.pipeline.claim import computed_by
from distill.pipeline.machines import check_alike, check_restarts, check_shared
from distill.pipeline.prepare import start_accelerator
from distill.pipeline.validation import check_training
from distill.pretraining.config import PretrainConfig
from distill.pretraining.images import open_images
from distill.pretraining.networks import FeatureMaps, pixel_normalization, student_maps, teacher_maps
from distill.run_folder import Origin, check_origin, claim_folder, holds_run, in_use, origin_of
from distill.training.checkpoint import load_network, pack, save_checkpoint
from distill.training.distributed import by_main, main_alone, named_losses, together
from distill.training.log import say
from distill.training.loop import train
from distill.training.stage import Stage
from distill.training.step_module import Distillation, DistillationTeacher, normalized
from distill.training.sync_norm import check_norms
from distill.training.train_state import BEST, finished
from teacher.external.places import pretrained_line

RESULT = "backbone.safetensors"
"""The trained backbone, in the run's folder: a file for `--student.weights`."""


def pretrain(config: PretrainConfig) -> Path:
    """Pre-train a backbone, and return the path of the file of its weights.

    Raises:
        UserError: a mistake in the configuration or the images; nothing has been written then.
        Interrupted: a signal stopped the training; it can be resumed.
    """
    with named_losses(), in_use(config.out):
        return _pretrain(config)


def _pretrain(config: PretrainConfig) -> Path:
    check_restarts(config.resume)
    accelerator = start_accelerator(config.precision)
    check_shared(config.out, accelerator)
    check_training("train", config.train, accelerator.num_processes)
    terms = parse_distillation(config.loss)
    splits = together(lambda: open_images(config.images, config.channels), accelerator)
    check_alike(config, computed_by(accelerator), splits, accelerator)
    channels, loss = len(splits.channels), DistillConfig(loss=config.loss)
    torch.manual_seed(config.seed)
    network = student_maps(config.student, channels)
    teacher = teacher_maps(config.teacher, channels, terms)
    comparison = build_distillation_loss(loss, terms, teacher, network)
    check_norms("train", config.train, network)
    origin, stats = by_main(lambda: _read(config, splits, accelerator), accelerator)
    main_alone(lambda: _claim(config, computed_by(accelerator), origin, stats), accelerator)
    stage = _stage(config, splits, stats)
    seconds = by_main(lambda: finished(stage.folder, config.train.steps), accelerator)
    if not config.resume or seconds is None:
        lesson = online_teacher([teacher], accelerator, features=terms.features)
        teach = _by_own_normalization(lesson, config, splits, stage)
        distillation = Distillation(teach, comparison.to(accelerator.device))
        train(network, stage, config.train, accelerator, distillation=distillation, resume=config.resume)
    load_network(network, stage.folder / BEST, accelerator)
    main_alone(lambda: _write_result(network, config, splits, stats), accelerator)
    return config.out / RESULT


def _read(config: PretrainConfig, splits: Splits, accelerator: Accelerator) -> tuple[Origin, Stats]:
    """What the training starts with, and mean and deviation of the images, for which each is read; writes nothing.

    Raises:
        UserError: an image cannot be read, or what is resumed has other settings or images.
    """
    resumes = holds_run(config, computed_by(accelerator))
    with working("comparing the images", say):
        origin = origin_of(splits)
        lines = check_origin(config.out, origin) if resumes else []
    for line in lines:
        say(line)
    say(f"{len(splits.train)} images; {config.student} learns from {config.teacher}: {config.loss}")
    say(f"teacher {config.teacher}: {pretrained_line(f'pspnet/{config.teacher}')}")
    path = config.out / "stats.json"
    if resumes and path.exists():
        return origin, read_record(path, Stats, "delete it, and it is computed again")
    with working("statistics of the images", say):
        return origin, compute_stats(splits.train, 0)


def _claim(config: PretrainConfig, computed: dict[str, object], origin: Origin, stats: Stats) -> None:
    claim_folder(config, computed, origin)
    write_json(config.out / "stats.json", stats)


def _stage(config: PretrainConfig, splits: Splits, stats: Stats) -> Stage:
    view = TrainView(
        splits.train,
        size=config.size,
        augment=config.augment,
        mean=stats.mean,
        optical=splits.optical,
        seed=config.seed,
        cache=config.cache,
        labeled=0,
    )
    return Stage(
        name="pretraining",
        folder=config.out / "pretraining",
        view=view,
        mean=torch.tensor(stats.mean).view(-1, 1, 1),
        std=torch.tensor(stats.std).view(-1, 1, 1),
        task_loss=_no_labels,
        seed=config.seed,
        aux=0.0,
    )


def _no_labels(logits: Tensor, batch: Batch) -> Tensor:
    """The loss against labels that nobody has: 0, connected to the network."""
    return 0.0 * logits.sum()


def _by_own_normalization(
    teacher: DistillationTeacher, config: PretrainConfig, splits: Splits, stage: Stage
) -> DistillationTeacher:
    """The teacher on images normalized as for its own training; other images than photos, as for the student's."""
    is_photo = splits.optical and len(splits.channels) == len(RGB_CHANNELS)
    if is_photo:
        mean, std = pixel_normalization(config.teacher)
        stage = replace(stage, mean=mean, std=std)

    def teach(batch: Batch, _: Tensor) -> TeacherOutput:
        return teacher(batch, normalized(batch, stage, config.train.channels_last))

    return teach


def _write_result(network: FeatureMaps, config: PretrainConfig, splits: Splits, stats: Stats) -> None:
    meta = {
        "pretrained": {"student": config.student, "teacher": config.teacher, "loss": config.loss},
        "steps": config.train.steps,
        "channels": list(splits.channels),
        "mean": list(stats.mean),
        "std": list(stats.std),
    }
    path = config.out / RESULT
    save_checkpoint(path, pack("model", network.backbone.state_dict()), meta)
    say(f"{path}: start from it with --student.arch {config.student} --student.weights {path}")
