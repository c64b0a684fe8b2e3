"""Teachers: the outputs of one or several networks for a batch, computed online or read from a cache."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from deploy.errors import UserError
from deploy.heartbeat import counted, working
from distill.data.sample import Batch, stack
from distill.data.view import View
from distill.distillation.teacher_cache import Layout, TeacherCache, filling_alone
from distill.losses.distillation_loss import TeacherOutput, label_probability
from distill.training.checkpoint import digest
from distill.training.distributed import is_on_main_machine, main_alone, wait_for_all
from distill.training.log import say
from distill.training.stage import Stage
from distill.training.step_module import DistillationTeacher, normalized


def online_teacher(
    networks: Sequence[nn.Module],
    accelerator: Accelerator,
    *,
    features: Sequence[str] = (),
    combine: str = "mean",
    channels_last: bool = True,
) -> DistillationTeacher:
    """A teacher that runs `networks` on every batch.

    Args:
        networks: each returns `teacher.pspnet.Output` with the same classes; moved to the device and frozen here.
        accelerator: device and precision.
        features: names of the feature maps to return, which the first network computes.
        combine: how the probabilities of several networks are combined (see `DistillConfig.combine`).
        channels_last: run the networks in the channels-last memory format.
    """
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    for network in networks:
        network.to(accelerator.device).to(memory_format=memory_format)  # pyright: ignore[reportCallIssue]
        network.eval().requires_grad_(False)

    @torch.no_grad()
    def teach(batch: Batch, image: Tensor) -> TeacherOutput:
        with accelerator.autocast():
            outputs = [network(image) for network in networks]
        logits = combined([output.logits for output in outputs], batch, combine)
        return TeacherOutput(logits, {name: outputs[0].features[name] for name in features})

    return teach


def combined(logits: Sequence[Tensor], batch: Batch, combine: str) -> Tensor:
    """Logits of the mixture of several teachers: the logarithm of a weighted mean of their probabilities.

    Args:
        logits: of each teacher, N×C×h×w; resized to the size of the first.
        batch: the labels.
        combine: "mean" weights teachers equally. With "label" the weight of teacher k of K in an image is
            (1 − softmax_k(L)) / (K − 1), L the teachers' mean cross-entropies with the labels: confidence-aware
            distillation (Zhang et al., ICASSP 2022, arXiv:2201.00007, equation 4).

    Raises:
        UserError: the teachers have different numbers of classes.
    """
    first, *others = logits
    if not others:
        return first
    classes = [maps.shape[1] for maps in logits]
    if len(set(classes)) > 1:
        raise UserError(
            f"the teachers have {', '.join(map(str, classes))} classes; train all of them on the same data set"
        )
    size = first.shape[-2:]
    maps = [
        m if m.shape[-2:] == size else F.interpolate(m, size, mode="bilinear", align_corners=False)
        for m in logits
    ]
    weight = torch.full((len(maps), len(first)), 1 / len(maps), device=first.device)
    if combine == "label":
        cross_entropy = torch.stack([-_mean_log_probability(m, batch) for m in maps])
        weight = (1 - F.softmax(cross_entropy, dim=0)) / (len(maps) - 1)
    log_weight = weight.log()[:, :, None, None, None]
    log_probabilities = torch.stack([F.log_softmax(m.float(), dim=1) for m in maps])
    return torch.logsumexp(log_probabilities + log_weight, dim=0)


def _mean_log_probability(logits: Tensor, batch: Batch) -> Tensor:
    """Mean log-probability of the labels over the labeled pixels of each image: N, 0 for an image without any."""
    log_p = label_probability(logits, batch.label, batch.labeled).clamp(min=1e-6).log()
    labeled = batch.labeled.float()
    return (log_p * labeled).flatten(1).sum(1) / labeled.flatten(1).sum(1).clamp(min=1)


def cached_teacher(
    teacher: DistillationTeacher,
    stage: Stage,
    folder: Path,
    numbers: str,
    accelerator: Accelerator,
    identity: Mapping[str, str],
    channels_last: bool = True,
) -> DistillationTeacher:
    """A teacher that reads the outputs of `teacher` for the stage's fixed views from a cache, filled here if needed.

    Args:
        teacher: computes the outputs that are not in the cache.
        stage: its view has a fixed number of `views`.
        folder: folder of the cache; the processes of one machine fill it together, and later runs reuse it.
        numbers: data type of the stored outputs (see `distill.distillation.teacher_cache`).
        accelerator: device, precision and processes.
        identity: values by name that distinguish this teacher from others (see `identity_of`).
        channels_last: pass images to `teacher` in the channels-last memory format.

    Raises:
        UserError: the folder holds another cache, or the disk is full.
    """
    view, device = stage.view, accelerator.device

    def ask(rows: Sequence[int]) -> TeacherOutput:
        samples = [view[divmod(row, len(view))] for row in rows]
        batch = stack(samples).to(device)
        return teacher(batch, normalized(batch, stage, channels_last))

    sample = ask([0])
    maps = {name: tuple(m.shape[1:]) for name, m in {"logits": sample.logits, **sample.features}.items()}
    layout = Layout(view.views * len(view), maps, numbers)  # pyright: ignore[reportArgumentType]
    identity = {**identity, "views": fingerprint(view), "arithmetic": accelerator.mixed_precision}
    cache = _filled(folder, layout, identity, ask, accelerator)

    def recall(batch: Batch, _: Tensor) -> TeacherOutput:
        target = cache.read([(epoch % view.views) * len(view) + index for epoch, index in batch.keys])
        return TeacherOutput(
            target.logits.to(device), {name: maps.to(device) for name, maps in target.features.items()}
        )

    return recall


def _filled(
    folder: Path,
    layout: Layout,
    identity: Mapping[str, str],
    ask: Callable[[Sequence[int]], TeacherOutput],
    accelerator: Accelerator,
) -> TeacherCache:
    """The cache in a folder, with all its rows, which the processes of one machine compute."""
    with filling_alone(folder, _wait) if accelerator.is_main_process else nullcontext():
        main_alone(lambda: TeacherCache(folder, layout, identity), accelerator)
        cache = TeacherCache(folder, layout, identity)
        missing = cache.missing()
        wait_for_all(accelerator)  # all processes have listed the missing chunks before any writes
        if is_on_main_machine():  # network file systems lose rows where two machines write to the same page
            beside = int(os.environ.get("LOCAL_WORLD_SIZE", str(accelerator.num_processes)))
            _fill(cache, missing[accelerator.local_process_index :: beside], ask)
        wait_for_all(accelerator)
    return TeacherCache(folder, layout, identity)  # opened anew: another machine sees what has been written


def _wait() -> None:
    say("teacher: another run fills the same cache; waiting for it")


def _fill(
    cache: TeacherCache, missing: Sequence[range], ask: Callable[[Sequence[int]], TeacherOutput]
) -> None:
    if not missing:
        return
    began = time.perf_counter()
    with working("teacher: outputs of the fixed views", say):
        for rows in counted(missing, len(missing)):
            cache.write(rows, ask(rows))
    count, seconds = sum(map(len, missing)), time.perf_counter() - began
    say(f"teacher: {count} views in {seconds:.0f} s, {cache.size / 1e6:.1f} MB in {cache.folder}")


def identity_of(networks: Sequence[nn.Module], combine: str) -> dict[str, str]:
    """What distinguishes these teachers from others: checksums over their weights, and how they are combined."""
    digests = [digest({name: t.detach().cpu() for name, t in n.state_dict().items()}) for n in networks]
    return {"teacher": " ".join([*digests, *([combine] if len(digests) > 1 else [])])}


def fingerprint(view: View) -> str:
    """SHA-256 of everything that the pixels of the views depend on: images, size, mean, augmentation, seed, number."""
    parts = [
        list(view.reader.ids),
        view.size,
        view.resize,
        repr(view.augment),
        view.mean,
        view.seed,
        view.views,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
