"""A plain distillation loop as a reference for `benchmarks/training.py`: no caches, fused kernels or channels-last."""

import random
import time
from dataclasses import replace

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import nn
from torch.nn import functional as F

from distill.distillation.ready_made import ready_teacher
from distill.pipeline.networks import new_network
from distill.run_context import RunContext


def plain_steps(context: RunContext, steps: int) -> list[float]:
    """Train a student in float32 and contiguous memory, with Pillow, the teacher online and an unfused optimizer.

    Args:
        context: the run; networks, sizes, batch and losses (KL at temperature 2) are the preset's.
        steps: training steps to take.

    Returns:
        Seconds of each step.
    """
    config, device = context.config, context.accelerator.device
    torch.manual_seed(0)
    teacher = fixed_teacher(context).to(device)
    student = new_network(config, config.student, context.splits, context.task).train().to(device)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4, fused=False, foreach=False)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (context.stats.mean, context.stats.std))
    draw = random.Random(0)
    times = []
    for _ in range(steps):
        began = time.perf_counter()
        chosen = [draw.randrange(len(context.splits.train)) for _ in range(config.student_train.batch_size)]
        samples = [_augmented(context, index, draw) for index in chosen]
        image = torch.stack([(torch.from_numpy(pixels) - mean) / std for pixels, _ in samples]).to(device)
        label = torch.stack([torch.from_numpy(ids) for _, ids in samples]).to(device)
        with torch.no_grad():
            soft = F.softmax(teacher(image).logits / 2, dim=1)
        output = student(image)
        size = label.shape[-2:]
        loss = sum(
            weight * F.cross_entropy(F.interpolate(maps, size, mode="bilinear"), label, ignore_index=255)
            for weight, maps in ((1.0, output.logits), (config.loss.aux, output.aux))
            if maps is not None
        )
        kd = F.kl_div(F.log_softmax(output.logits / 2, dim=1), soft, reduction="none").sum(1).mean() * 4
        (loss + kd).backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - began)
    return times


def fixed_teacher(context: RunContext) -> nn.Module:
    """The teacher, ready-made or with random weights: the same in every call, so that its cached outputs stay valid."""
    config = context.config
    if config.ready_made:
        return ready_teacher(config, context.splits, context.stats).eval()
    torch.manual_seed(0)
    model = replace(config.teacher, pretrained=False)
    return new_network(config, model, context.splits, context.task).eval()


def _augmented(context: RunContext, index: int, draw: random.Random) -> tuple[np.ndarray, np.ndarray]:
    """Read and augment a training image.

    Images of three 8-bit channels are zoomed, cropped, flipped and jittered by Pillow, which handles no others; those
    are only cropped, by numpy.

    Args:
        context: the run.
        index: index of the image in the training split.
        draw: source of the random numbers.

    Returns:
        The image, float32 C×H×W, and its labels, int64 H×W.
    """
    config = context.config
    (height, width), (tall, wide) = config.data.size, config.augment.crop
    sample = context.splits.train[index]
    pixels, ids = sample.image.numpy(), sample.label.numpy()
    if not context.splits.optical or len(pixels) != 3:
        top, left = draw.randint(0, max(0, ids.shape[0] - tall)), draw.randint(0, max(0, ids.shape[1] - wide))
        cut = np.nan_to_num(pixels[:, top : top + tall, left : left + wide])
        return np.ascontiguousarray(cut), np.ascontiguousarray(ids[top : top + tall, left : left + wide])
    zoom = draw.uniform(*config.augment.scale)
    size = max(wide, round(width * zoom)), max(tall, round(height * zoom))
    image = Image.fromarray(pixels.transpose(1, 2, 0).astype(np.uint8)).resize(
        size, Image.Resampling.BILINEAR
    )
    label = Image.fromarray(ids.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    left, top = draw.randint(0, size[0] - wide), draw.randint(0, size[1] - tall)
    box = (left, top, left + wide, top + tall)
    image, label = image.crop(box), label.crop(box)
    if draw.random() < 0.5:
        image, label = (part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for part in (image, label))
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(draw.uniform(0.7, 1.3))
    array = np.asarray(image, np.float32).transpose(2, 0, 1)
    return np.ascontiguousarray(array), np.asarray(label, np.int64).copy()
